#!/usr/bin/env python3
"""A second machine (a network namespace, a data directory of its own) joins with a token: skiff agent."""
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile

from cluster import DATA, IMAGE, ROOT, SKIFF, expect, get, kubectl, namespace, pod, run, running, sh, wait

NS, NETNS, NODE = 'agents', 'skiff-test-agent', 'test-agent'
HOST, GUEST = '203.0.113.1', '203.0.113.2'  # RFC 5737
INSIDE = ['nsenter', f'--net=/run/netns/{NETNS}']
state = {}


def agent(*args, server=None, ca_hash=None, token=None):
    argv = [*INSIDE, SKIFF, 'agent', '--data-dir', state['dir'], '--node-name', NODE, *args]
    for flag, value in (('--server', server), ('--ca-cert-hash', ca_hash), ('--token', token)):
        argv += [flag, value] if value else []
    return argv


def start(**kw):
    state['log'] = open(f'{state["dir"]}.log', 'a', encoding='utf-8')
    # As systemd starts it (Type=notify); what it starts must not take the socket for theirs.
    path = f'{state["tmp"].name}/notify'
    if not state.get('notify'):
        state['notify'] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        state['notify'].bind(path)
    state['agent'] = subprocess.Popen(agent(**kw), stdout=state['log'], stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                      env={**os.environ, 'NOTIFY_SOCKET': path})


def stop():
    if state.get('agent'):
        state['agent'].send_signal(signal.SIGTERM)
        state['agent'].wait(30)
        state['agent'] = None


def ready():
    return any(c['type'] == 'Ready' and c['status'] == 'True' for c in get('node', NODE)['status']['conditions'])


def test_setup():
    """The machine: a network namespace behind a link of its own."""
    state['tmp'] = tempfile.TemporaryDirectory()
    os.chmod(state['tmp'].name, 0o755)
    state['dir'] = f'{state["tmp"].name}/data'
    sh('ip', 'netns', 'del', NETNS, check=False)  # of a run that was cut off
    sh('ip', 'netns', 'add', NETNS)
    sh('ip', 'link', 'add', 'skiffagent', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', NETNS)
    sh('ip', 'addr', 'add', f'{HOST}/30', 'dev', 'skiffagent')
    sh('ip', 'link', 'set', 'skiffagent', 'up')
    for cmd in (f'link set lo up', f'addr add {GUEST}/30 dev eth0', 'link set eth0 up', f'route add default via {HOST}'):
        sh('ip', '-n', NETNS, *cmd.split())
    namespace(NS)


def test_refusals():
    """Without a token, with one that is none, with another authority's hash: said clearly, nothing left behind."""
    words = shlex.split(sh(SKIFF, 'token', 'create', '--ttl', '10m', '--data-dir', DATA))
    expect(words[:3] == ['skiff', 'agent', '--server'], f'token create printed {words}')
    given = dict(zip(words[2::2], words[3::2]))
    state['given'] = {'server': given['--server'], 'ca_hash': given['--ca-cert-hash'], 'token': given['--token']}
    expect(given['--token'].split('.')[0] in sh(SKIFF, 'token', 'list', '--data-dir', DATA), 'the token is not listed')
    good = state['given']
    for text, kw in (("skiff token create", {}), ('wrong cluster', {**good, 'ca_hash': 'sha256:' + '0' * 64}),
                     ('token was not accepted', {**good, 'token': 'aaaaaa.aaaaaaaaaaaaaaaa'})):
        code, out = sh(*agent(**kw), check=False, timeout=30)
        expect(code == 1 and text in out, f'{text}: exit code {code}, {out}')
    code, out = sh(*INSIDE, SKIFF, 'agent', '--data-dir', DATA, check=False)
    expect(code == 1 and 'whole cluster' in out, f'with the data directory of a cluster: {out}')


def test_join():
    """The node is ready, with certificates that the cluster signed for it."""
    start(**state['given'])
    wait('the node is ready', ready, 60)
    expect(state['notify'].recv(100, socket.MSG_DONTWAIT) == b'READY=1', 'systemd was not told')
    csrs = [c for c in get('csr')['items'] if c['spec']['username'] in (f'system:node:{NODE}',) or
            c['spec']['username'].startswith('system:bootstrap:')]
    signers = {c['spec']['signerName'] for c in csrs if c['status'].get('certificate')}
    expect(signers == {'kubernetes.io/kube-apiserver-client-kubelet', 'kubernetes.io/kubelet-serving'}, f'signed: {signers}')
    expect(get('node', NODE)['status']['addresses'][0]['address'] == GUEST, 'another address')


def test_pod():
    """A pod there runs, is reached by exec and logs through the API server, and reaches Services and names."""
    sh('python3', f'{ROOT}/tools/mkimage.py', f'{state["tmp"].name}/image.tar', IMAGE)
    sh(SKIFF, 'image', 'import', '--data-dir', state['dir'], f'{state["tmp"].name}/image.tar')
    kubectl('apply', '-f', '-', stdin=pod('there', 'echo started; sleep 100000', NS, nodeName=NODE))
    running('there', NS)
    # The kubelet's server takes its signed certificate into use a moment after it is there.
    wait('logs', lambda: kubectl('-n', NS, 'logs', 'there') == 'started\n')
    expect(kubectl('-n', NS, 'exec', 'there', '--', 'hostname') == 'there\n', 'exec')
    out = wait('the API Service by name', lambda: kubectl('-n', NS, 'exec', 'there', '--', 'nslookup', 'kubernetes.default.svc.cluster.local'))
    expect(get('service', 'kubernetes')['spec']['clusterIP'] in out, out)
    other = next(n['metadata']['name'] for n in get('nodes')['items'] if n['metadata']['name'] != NODE)
    kubectl('apply', '-f', '-', stdin=pod('here', 'sleep 100000', NS, nodeName=other))
    running('here', NS)
    ip = get('-n', NS, 'pod', 'here')['status']['podIP']
    kubectl('-n', NS, 'exec', 'there', '--', 'ping', '-c', '1', '-W', '5', ip)


def test_restart():
    """It starts again without a token, the pod runs on."""
    before = get('-n', NS, 'pod', 'there')['status']['containerStatuses'][0]['containerID']
    stop()
    start()
    wait('the lease is renewed', lambda: wait_lease())
    expect(get('-n', NS, 'pod', 'there')['status']['containerStatuses'][0]['containerID'] == before, 'another container')


def wait_lease():
    first = state.setdefault('renewed', get('-n', 'kube-node-lease', 'lease', NODE)['spec']['renewTime'])
    return get('-n', 'kube-node-lease', 'lease', NODE)['spec']['renewTime'] != first


def test_teardown():
    """Nothing of it is left; the cluster's own node runs on."""
    kubectl('delete', 'namespace', NS, '--timeout=120s', timeout=150)
    stop()
    sh(*INSIDE, SKIFF, 'down', '--data-dir', state['dir'])
    kubectl('delete', 'node', NODE)
    sh('ip', 'netns', 'del', NETNS)
    expect(state['dir'] not in open('/proc/self/mounts', encoding='utf-8').read(), 'mounts are left')
    state['tmp'].cleanup()
    expect(kubectl('get', '--raw', '/readyz') == 'ok', 'the cluster went with it')


if __name__ == '__main__':
    run(sys.modules[__name__])
