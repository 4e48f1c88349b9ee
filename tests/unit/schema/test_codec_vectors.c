/* Every vector of upstream's API round-trip data: JSON, protobuf and YAML of one object. */
#include "../test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/codec.h"
#include "schema/jv.h"

static struct str read_file(struct arena *a, const char *dir, const char *name, const char *ext)
{
	char path[1400];

	snprintf(path, sizeof path, "%s/%s.%s", dir, name, ext);
	FILE *f = fopen(path, "rb");

	if (!f)
		fail_msg("%s cannot be read", path);
	fseek(f, 0, SEEK_END);
	size_t n = (size_t)ftell(f);

	rewind(f);
	char *p = arena_bytes(a, n + 1);

	if (fread(p, 1, n, f) != n)
		fail_msg("%s: short read", path);
	fclose(f);
	return str_of(p, n);
}

static void assert_same(struct str got, struct str want, const char *name, const char *what)
{
	size_t i = 0;

	if (str_eq(got, want))
		return;
	while (i < got.n && i < want.n && got.p[i] == want.p[i])
		i++;
	size_t from = i > 60 ? i - 60 : 0;

	fail_msg("%s, %s: %zu bytes instead of %zu, first difference at %zu:\n got ...%.*s\nwant ...%.*s", name, what, got.n, want.n,
		 i, STR_ARG(str_sub(got, from, i + 60)), STR_ARG(str_sub(want, from, i + 60)));
}

/* JSON without indentation. */
static struct str compact(struct arena *a, struct str s)
{
	char *to = arena_bytes(a, s.n);
	size_t n = 0;
	bool in = false;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (in && c == '\\') {
			to[n++] = c;
			to[n++] = s.p[++i];
			continue;
		}
		if (c == '"')
			in = !in;
		if (in || (c != ' ' && c != '\n'))
			to[n++] = c;
	}
	return str_of(to, n);
}

static void name_claims(struct apps_v1_stateful_set *s, struct str kind, struct str api_version)
{
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
		s->spec.volume_claim_templates.v[i].kind = kind;
		s->spec.volume_claim_templates.v[i].api_version = api_version;
	}
}

static void check(const char *dir, const char *name)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct str json = read_file(&a, dir, name, "json"), pb = read_file(&a, dir, name, "pb");
	struct str api_version, kind, group, version;
	struct str want_json = compact(&a, json);

	assert_ok(object_peek(&a, MEDIA_JSON, json, true, &api_version, &kind));
	api_version_split(api_version, &group, &version);
	const struct schema_type *t = schema_type_for_kind(group, version, kind);

	if (!strcmp(name, "core.v1.WatchEvent")) {
		/* Has no kind and apiVersion, not even in its envelope. */
		t = &meta_v1_watch_event_type;
	}
	if (!t)
		fail_msg("%s: no type for %.*s %.*s", name, STR_ARG(api_version), STR_ARG(kind));
	struct str pb_version, pb_kind;

	assert_ok(object_peek(&a, MEDIA_PROTOBUF, pb, true, &pb_version, &pb_kind));
	assert_true(str_eq(pb_version, api_version) && str_eq(pb_kind, kind));

	/* JSON -> struct -> protobuf and JSON; without its indentation, which raw values would keep */
	struct decode_report report = {.arena = &a};
	void *obj = arena_alloc(&a, t->size), *indented = arena_alloc(&a, t->size);

	assert_ok(json_decode(&a, t, json, NULL, indented));
	json_encode(&b, t, indented);
	assert_same(buf_view(&b), want_json, name, "indented JSON to JSON");
	b.n = 0;
	assert_ok(json_decode(&a, t, want_json, &report, obj));
	if (report.problems.n)
		fail_msg("%s: %.*s", name, STR_ARG(report.problems.v[0]));
	object_encode(&b, MEDIA_PROTOBUF, t, obj);
	assert_same(buf_view(&b), pb, name, "JSON to protobuf");
	b.n = 0;
	json_encode(&b, t, obj);
	assert_same(buf_view(&b), want_json, name, "JSON to JSON");

	/* protobuf -> struct -> JSON and protobuf */
	void *from_pb = arena_alloc(&a, t->size);

	assert_ok(object_decode(&a, MEDIA_PROTOBUF, t, pb, NULL, from_pb));
	b.n = 0;
	json_encode(&b, t, from_pb);
	assert_same(buf_view(&b), want_json, name, "protobuf to JSON");
	struct pb_envelope env;

	assert_ok(pb_envelope_decode(pb, &env));
	bool verbatim = false;

	b.n = 0;
	assert_ok(pb_to_json(&b, t, env.raw, api_version, kind, &verbatim));
	if (t == &apps_v1_stateful_set_type) { /* its claim templates say what they are */
		buf_cleanup struct buf named = {0};

		name_claims(from_pb, STR("PersistentVolumeClaim"), STR("v1"));
		json_encode(&named, t, from_pb);
		name_claims(from_pb, STR_NULL, STR_NULL);
		assert_same(buf_view(&b), buf_view(&named), name, "pb_to_json");
	} else {
		assert_same(buf_view(&b), want_json, name, "pb_to_json");
	}
	buf_cleanup struct buf again = {0};

	assert_ok(pb_to_json(&again, t, env.raw, api_version, kind, &verbatim));
	assert_same(buf_view(&again), buf_view(&b), name, "pb_to_json again");
	b.n = 0;
	object_encode(&b, MEDIA_PROTOBUF, t, from_pb);
	assert_same(buf_view(&b), pb, name, "protobuf to protobuf");
	assert_true(object_equal(t, obj, from_pb));

	/* a deep copy, once its source is gone */
	arena_cleanup struct arena other = {0};
	void *copy = arena_alloc(&other, t->size);
	{
		arena_cleanup struct arena source = {0};
		void *first = arena_alloc(&source, t->size);

		assert_ok(json_decode(&source, t, arena_str(&source, want_json), NULL, first));
		object_copy(&other, t, first, copy);
	}
	assert_true(object_equal(t, obj, copy));
	b.n = 0;
	json_encode(&b, t, copy);
	assert_same(buf_view(&b), want_json, name, "copy to JSON");
	assert_int_equal(pb_size(t, copy), pb_size(t, obj));

	struct str yaml = read_file(&a, dir, name, "yaml");
	void *from_yaml = arena_alloc(&a, t->size);

	report = (struct decode_report){.arena = &a};
	assert_ok(yaml_decode(&a, t, yaml, &report, from_yaml));
	assert_int_equal(report.problems.n, 0);
	b.n = 0;
	json_encode(&b, t, from_yaml);
	assert_same(buf_view(&b), want_json, name, "YAML to JSON");
	b.n = 0;
	object_encode(&b, MEDIA_YAML, t, obj);
	assert_same(buf_view(&b), yaml, name, "to YAML");
	/* CBOR sorts the keys inside raw values too */
	buf_cleanup struct buf cbor = {0};
	void *from_cbor = arena_alloc(&a, t->size);
	struct jv got_tree, want_tree;

	object_encode(&cbor, MEDIA_CBOR, t, obj);
	assert_ok(object_decode(&a, MEDIA_CBOR, t, buf_view(&cbor), NULL, from_cbor));
	b.n = 0;
	json_encode(&b, t, from_cbor);
	assert_ok(jv_parse(&a, buf_view(&b), NULL, &got_tree));
	assert_ok(jv_parse(&a, want_json, NULL, &want_tree));
	assert_true(jv_equal(&got_tree, &want_tree));

	/* cut short anywhere, both decoders say so and no more */
	for (size_t n = 0; n < json.n; n += 1 + json.n / 97) {
		arena_cleanup struct arena c = {0};
		void *part = arena_alloc(&c, t->size);
		struct error *e = json_decode(&c, t, str_sub(json, 0, n), NULL, part);

		assert_non_null(e);
		error_free(e);
		error_free(object_decode(&c, MEDIA_PROTOBUF, t, str_sub(pb, 0, pb.n * n / json.n), NULL, part));
	}
}

static void test_vectors(void **state)
{
	const char *data = getenv("SKIFF_TEST_DATA");
	char dir[1024];
	int n = 0;

	assert_non_null(data);
	snprintf(dir, sizeof dir, "%s/vectors", data);
	DIR *d = opendir(dir);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		char *ext = strrchr(e->d_name, '.');

		if (!ext || strcmp(ext, ".json"))
			continue;
		*ext = 0;
		check(dir, e->d_name);
		n++;
	}
	closedir(d);
	assert_int_equal(n, 90);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
