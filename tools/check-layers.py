#!/usr/bin/env python3
"""Checks that no room includes upward or sideways (docs/architecture.md, "The house")."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLOORS = {
    'base': 1, 'schema': 2, 'loop': 2, 'net': 3, 'cel': 3, 'store': 4, 'client': 4, 'runtime': 4,
    'apiserver': 5, 'controller': 6, 'scheduler': 6, 'kubelet': 6, 'proxy': 6, 'dns': 6, 'cloud': 6, 'cmd': 7,
}
COMPONENTS = {'apiserver', 'controller', 'scheduler', 'kubelet', 'proxy', 'dns', 'cloud'}
# Only the API server opens the store; the kubelet knows the runtime as CRI; the API server is nobody's client library.
FORBIDDEN = {('kubelet', 'runtime'), ('apiserver', 'client'), ('apiserver', 'runtime')} | {
    (c, 'store') for c in COMPONENTS - {'apiserver'}} | {(c, 'runtime') for c in COMPONENTS} | {('cmd', 'store')}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z]+)/', re.M)


def main():
    bad = []
    for room in FLOORS:
        for folder, _, files in os.walk(os.path.join(ROOT, 'src', room)):
            for name in files:
                if not name.endswith(('.c', '.h')):
                    continue
                path = os.path.join(folder, name)
                for other in INCLUDE.findall(open(path, encoding='utf-8').read()):
                    if other == room or other not in FLOORS:
                        continue
                    if FLOORS[other] >= FLOORS[room] or (room, other) in FORBIDDEN:
                        bad.append(f'{os.path.relpath(path, ROOT)}: {room} must not include {other}')
    for b in bad:
        print(b, file=sys.stderr)
    print(f'layers: {len(bad)} wrong includes')
    sys.exit(1 if bad else 0)


main()
