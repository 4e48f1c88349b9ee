#!/usr/bin/env python3
"""Generates C structs and descriptor tables from api/*.api (docs/api-idl.md).

usage: apigen.py OUT.h OUT.c FILE.api...
"""
import json
import re
import shlex
import sys

SCALARS = {  # IDL type -> (field kind, C type)
    'string': ('FIELD_STRING', 'struct str'),
    'bool': ('FIELD_BOOL', 'bool'),
    'int32': ('FIELD_INT32', 'int32_t'),
    'int64': ('FIELD_INT64', 'int64_t'),
    'uint32': ('FIELD_UINT32', 'uint32_t'),
    'uint64': ('FIELD_UINT64', 'uint64_t'),
    'double': ('FIELD_DOUBLE', 'double'),
    'bytes': ('FIELD_BYTES', 'struct str'),
    'Quantity': ('FIELD_QUANTITY', 'struct str'),
    'IntOrString': ('FIELD_INTSTR', 'struct int_or_string'),
    'Time': ('FIELD_TIME', 'struct api_time'),
    'MicroTime': ('FIELD_MICROTIME', 'struct api_time'),
    'Duration': ('FIELD_DURATION', 'int64_t'),
    'RawExtension': ('FIELD_RAW', 'struct str'),
    'FieldsV1': ('FIELD_FIELDSV1', 'struct str'),
    'JSON': ('FIELD_JSON', 'struct str'),
    'Any': ('FIELD_ANY', 'struct str'),
    'ExtraValue': ('FIELD_STRINGS', 'struct strings'),
    'Verbs': ('FIELD_STRINGS', 'struct strings'),
}
# By value these are structs in Go, which omitempty never leaves out.
STRUCT_KINDS = {'FIELD_QUANTITY', 'FIELD_INTSTR', 'FIELD_TIME', 'FIELD_MICROTIME', 'FIELD_DURATION', 'FIELD_RAW',
                'FIELD_FIELDSV1', 'FIELD_JSON', 'FIELD_MESSAGE'}
PAIRS = {'struct str': 'struct str_pair', 'struct api_time': 'struct time_pair',
         'struct strings': 'struct strings_pair'}
C_WORDS = set('auto break case char const continue default do double else enum extern float for goto if inline int '
              'long register restrict return short signed sizeof static struct switch typedef union unsigned void '
              'volatile while bool true false unix linux'.split())
FLAGS = {'omitempty': 'FIELD_OMITEMPTY', 'omitzero': 'FIELD_OMITZERO', 'required': 'FIELD_REQUIRED',
         'inline': 'FIELD_INLINE', 'nojson': 'FIELD_NOJSON', 'atomic': 'FIELD_ATOMIC',
         'granular': 'FIELD_GRANULAR'}
VALUED = {'patch', 'patchKey', 'list', 'keys', 'default', 'proto', 'maxLength', 'minLength', 'min', 'max', 'maxItems', 'format', 'gate',
          'fill'}
RULES = {'must': 'RULE_MUST', 'positive': 'RULE_POSITIVE', 'immutable': 'RULE_IMMUTABLE'}
FORMATS = ('dns-label', 'dns-subdomain', 'dns1035-label', 'qualified-name', 'label-value', 'config-key', 'port-name', 'env-name', 'ip', 'cidr',
           'no-backsteps', 'descending-path', 'path-segment', 'id')


def die(where, message):
    sys.exit(f'{where}: {message}')


def snake(name):
    name = re.sub(r'[$]', '', name).replace('-', '_')
    # Plural acronyms count as one word: podIPs -> pod_ips.
    name = re.sub(r'([A-Z]{2,})s(?=$|[A-Z])', lambda m: m.group(1).capitalize() + 's', name)
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    name = re.sub(r'([A-Z]+)([A-Z][a-z])', r'\1_\2', name)
    name = name.lower()
    return name + '_' if name in C_WORDS else name


def cstr(s):
    return '"' + s.replace('\\', '\\\\').replace('"', '\\"') + '"'


class Field:
    off = set()  # gates of fields that are dropped

    def __init__(self, where, number, name, type_text, attrs):
        self.where, self.number, self.name = where, int(number), name
        self.flags, self.values, self.rules = [], {}, []
        self.doc = ''
        self.typemeta = False
        for a in attrs:
            key, eq, value = a.partition('=')
            if not eq and a in FLAGS:
                self.flags.append(FLAGS[a])
            elif not eq and a in RULES:
                self.rules.append(RULES[a])
            elif eq and key == 'format' and value not in FORMATS:
                die(where, f'unknown format {value}')
            elif eq and key in VALUED:
                self.values[key] = value
            else:
                die(where, f'unknown attribute {a}')
        self.card = 'CARD_ONE'
        if type_text.startswith('?'):
            self.card, type_text = 'CARD_PTR', type_text[1:]
        elif type_text.startswith('[]'):
            self.card, type_text = 'CARD_LIST', type_text[2:]
        elif type_text.startswith('map:'):
            self.card, type_text = 'CARD_MAP', type_text[4:]
        self.type_text = type_text
        self.cname = snake(name)


class Type:
    def __init__(self, group, name, attrs):
        self.group, self.name = group, name
        self.atomic = 'atomic' in attrs
        self.defaults = 'defaults' in attrs  # has a function NAME_default in schema/defaults_*.c
        self.json = next((a[5:] for a in attrs if a.startswith('json=')), None)
        self.like = next((a[5:] for a in attrs if a.startswith('like=')), None)
        self.doc = ''
        self.fields, self.top = [], False
        self.union = None
        self.cname = group.prefix + '_' + snake(name)
        self.struct = 'struct ' + self.cname


class Group:
    def __init__(self, group, version, prefix, openapi):
        self.group, self.version, self.prefix, self.openapi = group, version, prefix, openapi
        self.types, self.enums, self.closed, self.resources = {}, {}, set(), []


def parse(path, groups):
    group = cur = res = described = None
    for n, line in enumerate(open(path, encoding='utf-8'), 1):
        where = f'{path}:{n}'
        text = line.strip()
        if text.startswith('-- '):  # the description of the line above goes on
            if cur is None:
                die(where, 'a description of nothing')
            described.doc = f'{described.doc} {text[3:]}'.strip()
            continue
        if line.lstrip().startswith('#') or not line.strip():
            continue
        line, _, doc = line.partition(' -- ')  # types and fields: a sentence for `kubectl explain`
        doc = doc.strip()
        indented = line[0] == '\t'
        # default= values keep their JSON quotes, so no shell splitting on field lines.
        words = shlex.split(line) if not line.startswith(('\t', 'type')) or line.startswith('\tcolumn ') else line.split()
        if not indented:
            cur = res = None
            if words[0] == 'group':
                group = Group(words[1], words[2], words[4], '' if words[6] == '-' else words[6])
                key = re.sub(r'_(v\d+\w*)$', r'.\1', group.prefix)
                if key in groups:
                    die(where, f'group {key} is defined twice')
                groups[key] = group
            elif words[0] == 'off':  # features this server does not have: their fields are dropped
                Field.off.update(words[1:])
            elif words[0] in ('enum', 'open'):  # open: the known values of a set that may have others
                group.enums[words[1]] = words[2:]
                if words[0] == 'enum':
                    group.closed.add(words[1])
            elif words[0] == 'type':
                cur = Type(group, words[1], words[2:])
                cur.where, cur.doc, described = where, doc, cur
                if cur.name in group.types:
                    die(where, f'type {cur.name} is defined twice')
                group.types[cur.name] = cur
            elif words[0] == 'resource':
                res = {'plural': words[1], 'kind': words[2], 'namespaced': words[3] == 'namespaced', 'short': [],
                       'categories': [], 'verbs': [], 'singular': '', 'columns': [], 'subresources': [], 'where': where}
                group.resources.append(res)
            else:
                die(where, f'unknown statement {words[0]}')
        elif cur is not None:
            if words[0] == 'typemeta':
                cur.top = True
                for name in ('kind', 'apiVersion'):
                    f = Field(where, 0, name, 'string', ['omitempty'])
                    f.flags.append('FIELD_TYPEMETA')
                    f.doc = ('Kind says what this object is, in CamelCase; it cannot be changed.' if name == 'kind' else
                             'APIVersion defines the version of the schema this object is written in: group/version, or v1.')
                    cur.fields.append(f)
                described = cur
            elif words[0] == 'union':
                cur.union = (None if words[1] == '-' else words[1], words[2:])
            else:
                if words[2] == 'map':
                    words[2:4] = ['map:' + words[3]]
                cur.fields.append(Field(where, words[0], words[1], words[2], words[3:]))
                cur.fields[-1].doc, described = doc, cur.fields[-1]
        elif res is not None:
            if words[0] == 'subresource':
                i = words.index(':')
                res['subresources'].append((words[1], words[2:i], words[i + 1:]))
            elif words[0] == 'column':
                # column NAME TYPE .path|@function [wide] [name] [bare] [what an absent value shows]
                res['columns'].append(words[1:])
            elif words[0] == 'singular':
                res['singular'] = words[1]
            elif words[0] in ('short', 'categories', 'verbs'):
                res[words[0]] = words[1:]
            else:
                die(where, f'unknown resource line {words[0]}')
        else:
            die(where, 'a line that belongs to nothing')


def group_of(groups, t, name, where):
    """The group and the plain name of a type or enum that is named in t."""
    if name.count('.') < 2:
        return t.group, name
    g, v, name = name.split('.')
    return groups.get(f'{g}.{v}') or die(where, f'unknown group {g}.{v}'), name


def resolve(groups, t, f):
    """Sets f.kind, f.ctype, f.sub (Type or None), f.enum (name or None)."""
    f.sub = f.enum = None
    if f.type_text in SCALARS:
        f.kind, f.ctype = SCALARS[f.type_text]
        return
    group, name = group_of(groups, t, f.type_text, f.where)
    if name in group.enums:
        f.kind, f.ctype = SCALARS['string']
        f.enum = (group, name)
    elif name in group.types:
        f.kind, f.sub = 'FIELD_MESSAGE', group.types[name]
        f.ctype = f.sub.struct
    else:
        die(f.where, f'unknown type {f.type_text}')


def pair_type(f):
    if f.kind == 'FIELD_MESSAGE':
        return f.ctype + '_pair'
    return PAIRS.get(f.ctype) or die(f.where, f'map of {f.type_text} is not supported')


def member(f):
    if f.card == 'CARD_ONE':
        return f'{f.ctype} {f.cname};'
    if f.card == 'CARD_PTR':
        return f'{f.ctype} *{f.cname};'
    return f'LIST({f.ctype if f.card == "CARD_LIST" else pair_type(f)}) {f.cname};'


def describe(groups, t):
    """Descriptions that follow from a rule: of lists, of metadata, and of what is like another type."""
    if t.like:
        group, name = group_of(groups, t, t.like, t.where)
        other = group.types.get(name) or die(t.where, f'unknown type {t.like}')
        if other.like:
            describe(groups, other)
        docs = {f.name: f.doc for f in other.fields}
        t.doc = t.doc or other.doc
        for f in t.fields:
            f.doc = f.doc or docs.get(f.name, '')
    fields = {f.name: f for f in t.fields}
    if 'items' in fields and t.top and t.name.endswith('List'):
        kind = t.name[:-4]
        plural = next((r['plural'] for r in t.group.resources if r['kind'] == kind), f'objects of the kind {kind or "any"}')
        t.doc = t.doc or f'What a list request for {plural} is answered with.'
        fields['items'].doc = fields['items'].doc or f'List of {plural}.'
    if 'metadata' in fields and t.top:
        fields['metadata'].doc = fields['metadata'].doc or (
            "Standard list metadata: the version of the list, and where the next part of it begins." if t.name.endswith('List') else
            "Standard object's metadata: its name, identity, labels and history.")
    if not t.group.openapi:
        return
    if not t.doc:
        die(t.where, f'type {t.name} has no description')
    for f in t.fields:
        if not f.doc and 'FIELD_INLINE' not in f.flags:
            die(f.where, f'{t.name}.{f.name} has no description')


def fill_of(f):
    """What defaulting sets when the field is absent: (kind, int, string) or None."""
    text = f.values.get('fill', f.values.get('default'))
    if text is None or f.card not in ('CARD_ONE', 'CARD_PTR'):
        return None
    value = json.loads(text)
    if isinstance(value, bool) or isinstance(value, int):
        fill = ('SCHEMA_FILL_INT', int(value), '')
    elif isinstance(value, str):
        fill = ('SCHEMA_FILL_STR', 0, value)
    elif value == {} and f.sub and f.card == 'CARD_PTR':
        return ('SCHEMA_FILL_EMPTY', 0, '')
    else:
        die(f.where, f'fill={text} is not supported')
    return None if f.card == 'CARD_ONE' and not fill[1] and not fill[2] else fill


def mark_defaults(types):
    """t.has_defaults: defaulting changes something in it or below it."""
    for t in types:
        t.has_defaults = t.defaults or any(
            fill_of(f) or (f.kind == 'FIELD_QUANTITY' and f.card == 'CARD_MAP') for f in t.fields)
    changed = True
    while changed:
        changed = False
        for t in types:
            if not t.has_defaults and any(f.sub and f.sub.has_defaults for f in t.fields):
                t.has_defaults = changed = True


def mark_in_trees(types):
    """t.in_trees: custom resources have it: metadata, and what that is made of."""
    for t in types:
        t.in_trees = t.cname == 'meta_v1_object_meta'
    todo = [t for t in types if t.in_trees]
    while todo:
        for f in todo.pop().fields:
            if f.sub and not f.sub.in_trees:
                f.sub.in_trees = True
                todo.append(f.sub)


def mark_dropped(types):
    """t.drops: it or something below it has a field of a feature that is off."""
    for t in types:
        t.drops = any(f.values.get('gate') in Field.off for f in t.fields)
    changed = True
    while changed:
        changed = False
        for t in types:
            if not t.drops and any(f.sub and f.sub.drops for f in t.fields):
                t.drops = changed = True


def order(types):
    """By-value members first."""
    done, out = set(), []

    def visit(t, path):
        if t.cname in done:
            return
        if t in path:
            sys.exit(f'type {t.name} contains itself by value')
        for f in t.fields:
            if f.sub and f.card == 'CARD_ONE':
                visit(f.sub, path + [t])
        done.add(t.cname)
        out.append(t)
    for t in types:
        visit(t, [])
    return out


def write(path, lines):
    """What has not changed keeps its time: other descriptions rebuild the tables only."""
    text = '\n'.join(lines)
    try:
        with open(path, encoding='utf-8') as f:
            if f.read() == text:
                return
    except FileNotFoundError:
        pass
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


def write_header(path, types, groups):
    pairs = {}
    for t in types:
        for f in t.fields:
            if f.card == 'CARD_MAP' and f.sub:
                pairs[f.sub.cname] = f.sub
    o = ['/* Made by tools/apigen.py from api/; do not edit. */', '#ifndef SKIFF_SCHEMA_API_H',
         '#define SKIFF_SCHEMA_API_H', '', '#include "schema/schema.h"', '']
    for t in types:
        o.append(f'{t.struct};')
    for p in pairs.values():
        o.append(f'{p.struct}_pair;')
    for t in types:
        o.append('')
        o.append(f'{t.struct} {{ /* {t.group.group or "core"}/{t.group.version} {t.name} */')
        for f in t.fields:
            o.append(f'\t{member(f)}')
        if not t.fields:
            o.append('\tchar unused_;')
        o.append('};')
        o.append(f'extern const struct schema_type {t.cname}_type;')
        if t.cname in pairs:
            o += ['', f'{t.struct}_pair {{', '\tstruct str key;', f'\t{t.struct} value;', '};']
    o += ['', '/* Conditional defaults: schema/defaults_*.c. */']
    o += [f'void {t.cname}_default(struct arena *a, void *obj);' for t in types if t.defaults]
    o += ['', '/* Computed columns: schema/table_*.c. */']
    o += [f'void table_cell_{f}(struct buf *b, const struct table_cell *c);' for f in sorted(
        {c[2][1:] for g in groups.values() for r in g.resources for c in r['columns'] if c[2][0] == '@'})]
    o.append('')
    for g in groups.values():
        for r in g.resources:
            o.append(f'extern const struct api_resource {g.prefix}_{r["plural"]}_resource;')
    o += ['', '#endif', '']
    write(path, o)


class Tables:
    """The .c file: descriptors, with equal cold parts shared."""

    def __init__(self):
        self.o = ['/* Made by tools/apigen.py from api/; do not edit. */', '#include "schema/api.h"', '', '#include <stddef.h>', '']
        self.infos, self.enums, self.strs, self.bytes, self.keys = {}, {}, {}, {}, {}

    def strs_array(self, values):
        key = tuple(values)
        if not key:
            return 'NULL'
        if key not in self.strs:
            self.strs[key] = f'strs_{len(self.strs)}'
            self.o.append(f'static const struct str {self.strs[key]}[] = {{' +
                          ', '.join(f'STR_INIT({cstr(v)})' for v in key) + '};')
        return self.strs[key]

    def key(self, name):
        # An encoder copies 32 bytes, then 16 at a time.
        if name not in self.keys:
            self.keys[name] = f'key_{len(self.keys)}'
            size = max(32, (len(name) + 3 + 15) // 16 * 16)
            self.o.append(f'static const char {self.keys[name]}[{size}] = {cstr(chr(34) + name + chr(34) + ":")};')
        return self.keys[name]

    def bytes_array(self, values):
        key = tuple(values)
        if key not in self.bytes:
            self.bytes[key] = f'bytes_{len(self.bytes)}'
            self.o.append(f'static const uint8_t {self.bytes[key]}[] = {{' + ', '.join(map(str, key)) + '};')
        return self.bytes[key]

    def enum(self, e):
        group, name = e
        cname = f'{group.prefix}_{snake(name)}_enum'
        if cname not in self.enums:
            values = group.enums[name]
            self.enums[cname] = True
            self.o.append(f'static const struct schema_enum {cname} = {{{cstr(name)}, '
                          f'{self.strs_array(values)}, {len(values)}, {"true" if name in group.closed else "false"}}};')
        return '&' + cname

    def info(self, f):
        v = f.values
        keys = v['keys'].split(',') if 'keys' in v else []
        text = ', '.join([
            f'STR_INIT({cstr(v.get("patchKey", ""))})', self.strs_array(keys), str(len(keys)),
            cstr(v['default']) if 'default' in v else 'NULL', self.enum(f.enum) if f.enum else 'NULL',
            v.get('minLength', '-1'), v.get('maxLength', '-1'), cstr(v['gate']) if 'gate' in v else 'NULL'])
        fill = fill_of(f) or ('SCHEMA_FILL_NONE', 0, '')
        text += f', {fill[0]}, {fill[1]}, STR_INIT({cstr(fill[2])})'
        form = v['format'].upper().replace('-', '_') if 'format' in v else 'NONE'
        rules = f.rules + ['RULE_OFF'] * (v.get('gate') in Field.off) + ['RULE_MIN'] * ('min' in v) + ['RULE_MAX'] * ('max' in v)
        text += f', {" | ".join(rules) or "0"}, FORMAT_{form}, {v.get("maxItems", "-1")}, {v.get("min", "0")}, {v.get("max", "0")}'
        if text not in self.infos:
            self.infos[text] = f'info_{len(self.infos)}'
            self.o.append(f'static const struct schema_field_info {self.infos[text]} = {{{text}}};')
        return '&' + self.infos[text]

    def field(self, t, f, path):
        flags = list(f.flags)
        flags += {'set': ['FIELD_LIST_SET'], 'map': ['FIELD_LIST_MAP'], 'atomic': ['FIELD_LIST_ATOMIC'],
                  None: []}[f.values.get('list')]
        strategy = f.values.get('patch', '').split(',')
        flags += ['FIELD_PATCH_REPLACE'] * ('replace' in strategy) + ['FIELD_PATCH_MERGE'] * ('merge' in strategy) + ['FIELD_PATCH_RETAIN'] * ('retainKeys' in strategy)
        elem, value_offset = '0', '0'
        if f.card == 'CARD_LIST':
            elem = f'sizeof({f.ctype})'
        elif f.card == 'CARD_MAP':
            elem, value_offset = f'sizeof({pair_type(f)})', f'offsetof({pair_type(f)}, value)'
        elif f.card == 'CARD_PTR':
            elem = f'sizeof({f.ctype})'
        return (f'\t{{STR_INIT({cstr(f.name)}), {f.number}, {" | ".join(flags) or "0"}, {f.kind}, {f.card}, {elem}, '
                f'offsetof({t.struct}, {path}), {value_offset}, '
                f'{"&" + f.sub.cname + "_type" if f.sub else "NULL"}, {self.info(f)}, {self.key(f.name)}}},')

    def type(self, t):
        def flat(cur, prefix):
            for f in cur.fields:
                if 'FIELD_INLINE' in f.flags:
                    yield from flat(f.sub, prefix + f.cname + '.')
                elif 'FIELD_NOJSON' not in f.flags:
                    yield f, prefix + f.cname
        rows = [self.field(t, f, path) for f, path in flat(t, '')]
        prows = [self.field(t, f, f.cname) for f in sorted((f for f in t.fields if f.number), key=lambda f: f.number)]
        name = t.cname
        if rows:
            self.o += [f'static const struct schema_field {name}_fields[] = {{', *rows, '};']
        if prows:
            self.o += [f'static const struct schema_field {name}_pfields[] = {{', *prows, '};']
        index = [0] * (1 + max((f.number for f in t.fields), default=0))
        for i, f in enumerate(sorted((f for f in t.fields if f.number), key=lambda f: f.number)):
            index[f.number] = i + 1
        pindex = self.bytes_array(index)
        jindex, always, at = {}, 0, 0
        for f in t.fields:
            jindex[f.name] = at
            if 'FIELD_NOJSON' in f.flags:
                jindex[f.name] = 255
                continue
            at += sum(1 for _ in flat(f.sub, '')) if 'FIELD_INLINE' in f.flags else 1
        for i, (f, _) in enumerate(flat(t, '')):
            struct = f.card == 'CARD_ONE' and f.kind in STRUCT_KINDS
            if 'FIELD_OMITZERO' not in f.flags and (struct or 'FIELD_OMITEMPTY' not in f.flags):
                always |= 1 << i
        wires = ['{255, 0, 0, 0}'] * len(index)
        for f in t.fields:
            if f.number and jindex[f.name] != 255:
                wires[f.number] = (f'{{{jindex[f.name]}, {f.kind}, {f.card}, '
                                   f'{("FIELD_OMITEMPTY" in f.flags) + 2 * ("FIELD_INLINE" in f.flags)}}}')
        wire = f'{name}_wire' if len(rows) <= 64 else 'NULL'
        if wire != 'NULL':
            self.o.append(f'static const struct schema_wire {wire}[] = {{{", ".join(wires)}}};')
        always = f'{always:#x}u' if len(rows) <= 64 else '0'
        members = 'NULL'
        disc, n_members = 'NULL', 0
        if t.union:
            members, n_members = f'{name}_union', len(t.union[1])
            disc = cstr(t.union[0]) if t.union[0] else 'NULL'
            go = {snake(f.name): f.name for f in t.fields}
            self.o.append(f'static const struct schema_union_member {members}[] = {{' + ', '.join(
                f'{{{cstr(m)}, {cstr(go.get(snake(m), m)[0].upper() + m[1:])}}}' for m in t.union[1]) + '};')
        meta = next((f for f in t.fields if f.name == 'metadata' and t.top), None)
        union = {'Array': 'SCHEMA_OR_ARRAY', 'Bool': 'SCHEMA_OR_BOOL', 'StringArray': 'SCHEMA_OR_STRING_ARRAY',
                 None: 'SCHEMA_OBJECT'}[t.json]
        by_name = 'NULL'
        if t.in_trees:
            names = [f.name for f, _ in flat(t, '')]
            by_name = f'{name}_by_name'
            self.o.append(f'static const uint16_t {by_name}[] = {{{", ".join(str(names.index(n)) for n in sorted(names))}}};')
        docs = [t.doc] + [f.doc for f, _ in flat(t, '')]
        docs = ' "\\0" '.join(map(cstr, docs)) if any(docs) else 'NULL'
        g = t.group
        openapi = f'{g.openapi}.{t.name}' if g.openapi else ''
        self.o += [f'const struct schema_type {name}_type = {{',
                   f'\t{cstr(t.name)}, {cstr(openapi)}, STR_INIT({cstr(g.group)}), STR_INIT({cstr(g.version)}),',
                   f'\t{name + "_fields" if rows else "NULL"}, {len(rows)}, '
                   f'{name + "_pfields" if prows else "NULL"}, {len(prows)}, sizeof({t.struct}), '
                   f'{"true" if t.atomic else "false"}, {union},',
                   f'\t{f"offsetof({t.struct}, {meta.cname})" if meta else -1}, {"true" if t.top else "false"}, '
                   f'{disc}, {members}, {n_members}, {pindex}, {len(index)}, {wire}, {always}, {"true" if t.has_defaults else "false"}, {"true" if t.drops else "false"}, '
                   f'{name + "_default" if t.defaults else "NULL"}, {docs}, {by_name},', '};', '']

    def resource(self, groups, g, r):
        name = f'{g.prefix}_{r["plural"]}'
        verb = lambda vs: ' | '.join('VERB_' + v.upper() for v in vs) or '0'
        subs = 'NULL'
        if r['subresources']:
            subs = f'{name}_subresources'
            self.o.append(f'static const struct api_subresource {subs}[] = {{')
            for sub, kind, verbs in r['subresources']:
                gv = kind[1].rsplit('/', 1) if len(kind) > 1 else ['', '']
                self.o.append(f'\t{{STR_INIT({cstr(sub)}), STR_INIT({cstr(kind[0])}), STR_INIT({cstr(gv[0])}), '
                              f'STR_INIT({cstr(gv[1])}), {verb(verbs)}}},')
            self.o.append('};')
        columns = 'NULL'
        if r['columns']:
            columns = f'{name}_columns'
            absent = {'none': '<none>', 'unset': '<unset>', 'unknown': '<unknown>', 'na': 'N/A'}
            self.o.append(f'static const struct api_column {columns}[] = {{')
            for col, kind, source, *more in r['columns']:
                wide, named, bare = 'wide' in more, col == 'Name' or 'name' in more, 'bare' in more
                shown = next((absent[m] for m in more if m not in ('wide', 'name', 'bare')), '')
                fn = f'table_cell_{source[1:]}' if source[0] == '@' else 'NULL'
                path = source[1:] if source[0] == '.' else ''
                self.o.append(f'\t{{{cstr(col)}, {cstr(kind)}, {int(wide)}, {int(named)}, {int(bare)}, STR_INIT({cstr(path)}), {cstr(shown)}, {fn}}},')
            self.o.append('};')
        t = g.types.get(r['kind']) or die(r['where'], f'no type {r["kind"]}')
        lt = g.types.get(r['kind'] + 'List')
        short, cats = self.strs_array(r['short']), self.strs_array(r['categories'])
        self.o += [f'const struct api_resource {name}_resource = {{',
                   f'\tSTR_INIT({cstr(g.group)}), STR_INIT({cstr(g.version)}), STR_INIT({cstr(r["plural"])}), '
                   f'STR_INIT({cstr(r["singular"])}), STR_INIT({cstr(r["kind"])}), '
                   f'STR_INIT({cstr(r["kind"] + "List" if lt else "")}),',
                   f'\t{"true" if r["namespaced"] else "false"}, {verb(r["verbs"])}, {short}, {len(r["short"])}, '
                   f'{cats}, {len(r["categories"])}, {subs}, {len(r["subresources"])},',
                   f'\t&{t.cname}_type, {"&" + lt.cname + "_type" if lt else "NULL"}, '
                   f'{columns}, {len(r["columns"])},', '};']
        return name


def main():
    header, source, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    groups = {}
    for path in files:
        parse(path, groups)
    types = [t for g in groups.values() for t in g.types.values()]
    for t in types:
        for f in t.fields:
            resolve(groups, t, f)
    for t in types:
        describe(groups, t)
    mark_defaults(types)
    mark_dropped(types)
    mark_in_trees(types)
    types = order(types)
    write_header(header, types, groups)
    tables = Tables()
    for t in types:
        tables.type(t)
    names = [tables.resource(groups, g, r) for g in groups.values() for r in g.resources]
    tables.o += ['', 'const struct api_resource *const api_resources[] = {',
                 *(f'\t&{n}_resource,' for n in names), '};', f'const size_t n_api_resources = {len(names)};', '',
                 'const struct schema_type *const api_types[] = {',
                 *(f'\t&{t.cname}_type,' for t in types if t.top), '};',
                 f'const size_t n_api_types = {sum(t.top for t in types)};', '']
    write(source, tables.o)


main()
