#!/usr/bin/env python3
"""kill -9 of every component and of containers: everything comes back, nothing is lost, pods run on."""
import json
import os
import signal
import sys
import tempfile

from cluster import DATA, SKIFF, expect, get, kubectl, namespace, pod, run, running, sh, wait

NS = 'faults'
RUN = '/run/skiff' if DATA == '/var/lib/skiff' else f'{DATA}/run'


def components():
    """name -> pid, as the supervisor wrote them."""
    out = {}
    for line in open(f'{RUN}/components', encoding='utf-8'):
        name, pid = line.split()[:2]
        out[name] = int(pid)
    return out


def kill_and_wait(name):
    before = components()[name]
    os.kill(before, signal.SIGKILL)
    wait(f'{name} started again', lambda: components().get(name) not in (0, None, before), 30)


def test_setup():
    namespace(NS)
    kubectl('apply', '-f', '-', stdin=pod('steady', 'sleep 100000', NS))
    running('steady', NS)


def container_id():
    return get('-n', NS, 'pod', 'steady')['status']['containerStatuses'][0]['containerID']


def still_the_same(before):
    wait('API answers', lambda: kubectl('get', '--raw', '/readyz') == 'ok')
    expect(container_id() == before, 'the container was not touched')
    expect(kubectl('-n', NS, 'exec', 'steady', '--', 'echo', 'on').strip() == 'on', 'exec works again')


def test_kubelet():
    before = container_id()
    kill_and_wait('kubelet')
    wait('exec works', lambda: kubectl('-n', NS, 'exec', 'steady', '--', 'true') == '')
    still_the_same(before)


def test_runtime():
    before = container_id()
    kill_and_wait('container-runtime')
    wait('exec works', lambda: kubectl('-n', NS, 'exec', 'steady', '--', 'true') == '')
    still_the_same(before)


def test_apiserver():
    before = container_id()
    kubectl('-n', NS, 'create', 'configmap', 'kept', '--from-literal=a=b')
    kill_and_wait('kube-apiserver')
    wait('API answers', lambda: kubectl('get', '--raw', '/readyz') == 'ok')
    expect(get('-n', NS, 'configmap', 'kept')['data']['a'] == 'b', 'an acknowledged write is there')
    still_the_same(before)


def test_controllers_and_scheduler():
    for name in ('kube-controller-manager', 'kube-scheduler'):
        kill_and_wait(name)
    kubectl('-n', NS, 'create', 'deployment', 'after', '--image=docker.io/library/skiff-demo:1', '--', 'sleep', '1000')
    kubectl('-n', NS, 'rollout', 'status', 'deployment/after', '--timeout=60s')


def test_proxy_and_dns():
    for name in ('kube-proxy', 'cluster-dns', 'cloud-controller-manager'):
        kill_and_wait(name)
    wait('names resolve', lambda: 'Address' in kubectl('-n', NS, 'exec', 'steady', '--', 'nslookup', 'kubernetes.default.svc.cluster.local'))


def test_container():
    kubectl('apply', '-f', '-', stdin=pod('victim', 'sleep 100000', NS))
    running('victim', NS)
    kubectl('-n', NS, 'exec', 'victim', '--', 'sh', '-c', 'kill -9 1', check=False)
    # Process 1 ignores signals from its own namespace: from outside then.
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if open(f'/proc/{pid}/cmdline', encoding='utf-8').read().split('\0')[:3] == ['sleep', '100000', ''] or \
               'sleep 100000' in open(f'/proc/{pid}/cmdline', encoding='utf-8').read().replace('\0', ' '):
                ns = open(f'/proc/{pid}/cgroup', encoding='utf-8').read()
                uid = get('-n', NS, 'pod', 'victim')['metadata']['uid']
                if uid in ns:
                    os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
    wait('restarted', lambda: get('-n', NS, 'pod', 'victim')['status']['containerStatuses'][0]['restartCount'] >= 1)
    running('victim', NS)


def test_snapshot():
    """A backup of the running cluster is whole, holds what was acknowledged, and becomes a store; a cut one is refused."""
    def field(text, name):
        return next(line.split()[1] for line in text.splitlines() if line.startswith(name))

    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        saved = sh(SKIFF, 'snapshot', 'save', f'{d}/snap', '--data-dir', DATA)
        expect(field(saved, 'hash') == field(sh(SKIFF, 'snapshot', 'status', f'{d}/snap'), 'hash'), 'another hash')
        code, text = sh(SKIFF, 'snapshot', 'restore', f'{d}/snap', '--data-dir', DATA, check=False)
        expect(code == 1 and 'is running' in text, f'restored into a running cluster: {text}')
        sh(SKIFF, 'snapshot', 'restore', f'{d}/snap', '--data-dir', f'{d}/new')
        restored = sh(SKIFF, 'snapshot', 'status', f'{d}/new/store/data.mdb')
        expect(field(restored, 'keys') == field(saved, 'keys'), f'{saved} became {restored}')
        with open(f'{d}/snap', 'r+b') as f:
            f.truncate(os.path.getsize(f'{d}/snap') - 4096)
        code, text = sh(SKIFF, 'snapshot', 'restore', f'{d}/snap', '--data-dir', f'{d}/other', check=False)
        expect(code == 1 and 'truncated' in text and not os.path.exists(f'{d}/other/store/data.mdb'), f'a cut one: {text}')
        code, text = kubectl('get', '--raw', '/debug/snapshot', '--as', 'nobody', check=False)
        expect(code != 0 and 'forbidden' in text.lower(), f'for anybody: {text[:200]}')


def test_teardown():
    kubectl('delete', 'namespace', NS, '--timeout=120s', timeout=150)


if __name__ == '__main__':
    run(sys.modules[__name__])
