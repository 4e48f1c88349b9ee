"""What the cluster tests share: kubectl on the running cluster, waiting for conditions, TAP output.

A test is a function named test_*; its docstring says what must hold. run() calls them in order and prints TAP.
"""
import functools
import json
import os
import re
import subprocess
import sys
import time
import traceback

DATA = os.environ.get('SKIFF_DATA_DIR', '/var/lib/skiff')
KUBECONFIG = os.environ.get('KUBECONFIG', f'{DATA}/admin.kubeconfig')
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIFF = os.environ.get('SKIFF', f'{ROOT}/build/skiff')
KUBECTL = os.environ.get('KUBECTL', 'kubectl')
IMAGE = 'docker.io/library/skiff-demo:1'
SLOW = float(os.environ.get('SKIFF_TEST_SLOW', '1'))  # an emulated or crowded machine: all limits of time, times this


class Failed(Exception):
    pass


def sh(*argv, stdin=None, timeout=120, check=True, env=None):
    """Runs a command; returns its output (stdout + stderr on failure)."""
    if SLOW != 1:
        argv = [re.sub(r'^--timeout=(\d+)s$', lambda m: f'--timeout={float(m[1]) * SLOW:.0f}s', a) for a in argv]
    r = subprocess.run(argv, input=stdin, text=True, capture_output=True, timeout=timeout * SLOW,
                       env={**os.environ, 'KUBECONFIG': KUBECONFIG, **(env or {})})
    if check and r.returncode != 0:
        raise Failed(f'{" ".join(argv)} exited with {r.returncode}: {(r.stdout + r.stderr).strip()[-2000:]}')
    return r.stdout if check else (r.returncode, r.stdout + r.stderr)


def kubectl(*argv, **kw):
    return sh(KUBECTL, *argv, **kw)


@functools.cache
def kubectl_minor():
    """Debian 12's kubectl is 1.20: what it had not learnt yet is not asked of it."""
    return int(json.loads(kubectl('version', '--client', '-o', 'json'))['clientVersion']['minor'].rstrip('+'))


def get(*argv):
    return json.loads(kubectl('get', *argv, '-o', 'json'))


def replace_sub(path, sub, change):
    """Reads the object at `path`, changes it and puts it to its subresource (an old kubectl cannot patch one)."""
    o = json.loads(kubectl('get', '--raw', path))
    change(o)
    del o['metadata']['resourceVersion']
    kubectl('replace', '--raw', f'{path}/{sub}', '-f', '-', stdin=json.dumps(o))


def wait(what, condition, timeout=60):
    """Polls until condition() is true; returns its value. Its exceptions count as "not yet"."""
    timeout *= SLOW
    end, last = time.monotonic() + timeout, None
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except (Failed, subprocess.TimeoutExpired, KeyError, IndexError, json.JSONDecodeError) as e:
            last = e
        time.sleep(0.1)
    raise Failed(f'{what}: not within {timeout} s' + (f'; last: {last}' if last else ''))


def expect(condition, text):
    if not condition:
        raise Failed(text)


def namespace(name):
    """A fresh namespace; whatever was there goes first."""
    kubectl('delete', 'namespace', name, '--ignore-not-found', '--timeout=90s', timeout=120)
    kubectl('create', 'namespace', name)
    wait('default service account', lambda: get('-n', name, 'serviceaccount', 'default'))
    return name


def pod(name, command, ns, **spec):
    """Manifest of a one-container pod of the demo image."""
    return json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'namespace': ns, 'labels': {'app': name}},
                       'spec': {'terminationGracePeriodSeconds': 1, **spec,
                                'containers': [{'name': 'c', 'image': IMAGE, 'command': ['sh', '-c', command]}]}})


def running(name, ns, timeout=60):
    return wait(f'pod {name} running', lambda: get('-n', ns, 'pod', name)['status'].get('phase') == 'Running', timeout)


def run(module):
    tests = [(n, f) for n, f in vars(module).items() if n.startswith('test_') and callable(f)]
    only = sys.argv[1:]
    if only:
        tests = [t for t in tests if t[0] in only]
    bad = 0
    print(f'1..{len(tests)}', flush=True)
    for i, (name, fn) in enumerate(tests, 1):
        start = time.monotonic()
        try:
            fn()
            print(f'ok {i} - {name} # {time.monotonic() - start:.1f} s', flush=True)
        except Exception as e:  # a test must not end the others
            bad += 1
            print(f'not ok {i} - {name}', flush=True)
            text = str(e) if isinstance(e, Failed) else traceback.format_exc()
            for line in text.splitlines():
                print(f'# {line}', flush=True)
    sys.exit(1 if bad else 0)
