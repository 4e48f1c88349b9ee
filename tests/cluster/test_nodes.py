#!/usr/bin/env python3
"""The cluster as a whole: `down` leaves nothing behind, `up` finds everything again, and three nodes on one machine are one cluster."""
import glob
import json
import os
import re
import sys

from cluster import DATA, SKIFF, expect, get, kubectl, namespace, pod, run, running, sh, wait

NS = 'nodes'
PORT = 30987


def components():
    rundir = '/run/skiff' if DATA == '/var/lib/skiff' else f'{DATA}/run'
    with open(f'{rundir}/components', encoding='utf-8') as f:
        return [pid for pid in (int(line.split()[1]) for line in f) if pid]


def ours(pid):
    """Whether a process of this number is the skiff under test or the shepherd of one of its containers."""
    try:
        return os.path.basename(os.readlink(f'/proc/{pid}/exe')) in ('skiff', 'conmon', 'crun')
    except OSError:
        return False


def cgroups():
    """The cluster's cgroups: at the root of the hierarchy (v2), or of each controller's (v1). Those of other directories have a hash."""
    named = r'skiff(-\d)?' if DATA == '/var/lib/skiff' else r'skiff-[0-9a-f]{8}(-\d)?'
    roots = ['/sys/fs/cgroup', *glob.glob('/sys/fs/cgroup/*/')]
    return [f'{root}/{name}' for root in roots for name in os.listdir(root) if re.fullmatch(named, name)]


def leftovers():
    with open('/proc/self/mountinfo', encoding='utf-8') as f:
        mounts = [m for m in (line.split()[4] for line in f) if m.startswith((DATA, '/run/skiff', '/run/netns/skiff', '/run/netns/cni'))]
    links = [link['ifname'] for link in json.loads(sh('ip', '-j', 'link')) if 'skiff' in link['ifname'] or link['ifname'].startswith('veth')]
    tables = [line for line in sh('nft', 'list', 'tables').splitlines() if 'skiff' in line or 'kube' in line]
    netns = [line for line in sh('ip', 'netns').splitlines() if 'skiff' in line]
    return mounts, links, tables, netns, cgroups()


def nothing_is_left(pids):
    expect(not any(map(ours, pids)), f'components that run on: {list(filter(ours, pids))}')
    for what, left in zip(('mounts', 'links', 'nftables tables', 'network namespaces', 'cgroups'), leftovers()):
        expect(not left, f'{what} are left: {left}')


def page(ip, port):
    return sh('curl', '-fsS', '-m', '5', f'http://{ip}:{port}/')


def page_in(name, ip, port, path='/'):
    """Fetched in a pod: Debian's static busybox has no wget that works, nc does."""
    request = f'printf "GET {path} HTTP/1.0\\r\\n\\r\\n" | nc -w 3 {ip} {port}'
    return kubectl('-n', NS, 'exec', name, '--', 'sh', '-c', request).split('\n\n')[-1]


def test_down():
    namespace(NS)
    kubectl('apply', '-f', '-', stdin=pod('ended', 'echo last words', NS, restartPolicy='Never'))
    kubectl('apply', '-f', '-', stdin=pod('steady', 'echo up; sleep 100000', NS))
    kubectl('-n', NS, 'create', 'configmap', 'kept', '--from-literal=a=b')
    running('steady', NS)
    wait('the other ended', lambda: get('-n', NS, 'pod', 'ended')['status']['phase'] == 'Succeeded')
    pids = components()
    expect(all(map(ours, pids)), 'the components run')
    expect(all(leftovers()[i] for i in (0, 1, 2, 4)), f'what is to go is seen: {leftovers()}')
    sh(SKIFF, 'down', '--data-dir', DATA)
    nothing_is_left(pids)


def test_up_on_three_nodes():
    """All objects are there, pods run again, the log of one that ended can still be read."""
    sh(SKIFF, 'up', '--data-dir', DATA, '--nodes', '3')
    expect(get('-n', NS, 'configmap', 'kept')['data']['a'] == 'b', 'an object')
    wait('three nodes', lambda: sum(c['type'] == 'Ready' and c['status'] == 'True' for n in get('nodes')['items']
                                    for c in n['status']['conditions']) == 3)
    wait('the log of a pod that ended before', lambda: kubectl('-n', NS, 'logs', 'ended') == 'last words\n', 20)
    wait('the pod runs again', lambda: kubectl('-n', NS, 'logs', 'steady') == 'up\n')
    status = get('-n', NS, 'pod', 'steady')['status']['containerStatuses'][0]
    expect(status['restartCount'] == 1 and 'running' in status['state'], str(status))
    expect(sh(SKIFF, 'status', '--data-dir', DATA).count(' Ready ') == 3, 'status')
    with open(f'{DATA}/log/kube-apiserver.log', encoding='utf-8') as f:
        denied = [line for line in f if 'Permission denied' in line]
    expect(not denied, f'the API server reads what it is given: {denied[:2]}')


def test_pods_across_nodes():
    """A pod on each node reaches the pods of the others, and the Service of one, by address and name."""
    nodes = [n['metadata']['name'] for n in get('nodes')['items']]
    for i, node in enumerate(nodes):
        kubectl('apply', '-f', '-', stdin=pod(f'on{i}', 'echo page > /tmp/index.html; exec httpd -f -p 8080 -h /tmp', NS, nodeName=node))
    kubectl('-n', NS, 'expose', 'pod', 'on1', '--name=web', '--port=80', '--target-port=8080')
    for i in range(len(nodes)):
        running(f'on{i}', NS)
    ips = [get('-n', NS, 'pod', f'on{i}')['status']['podIP'] for i in range(len(nodes))]
    expect(len({ip.rsplit('.', 1)[0] for ip in ips}) == len(nodes), f'a network for each node: {ips}')
    service = get('-n', NS, 'service', 'web')['spec']['clusterIP']
    for i in range(len(nodes)):
        for ip in ips:
            wait(f'on{i} reaches {ip}', lambda: page_in(f'on{i}', ip, 8080) == 'page\n', 20)
        wait(f'on{i} reaches the Service', lambda: page_in(f'on{i}', service, 80) == 'page\n', 20)
        wait(f'on{i} finds the name', lambda: service in kubectl('-n', NS, 'exec', f'on{i}', '--', 'nslookup', f'web.{NS}.svc.cluster.local'), 20)


def test_node_port_of_each_node():
    patch = {'spec': {'type': 'NodePort', 'ports': [{'port': 80, 'targetPort': 8080, 'nodePort': PORT}]}}
    kubectl('-n', NS, 'patch', 'service', 'web', '-p', json.dumps(patch))
    for n in get('nodes')['items']:
        ip = next(a['address'] for a in n['status']['addresses'] if a['type'] == 'InternalIP')
        wait(f'node port of {ip}', lambda: page(ip, PORT) == 'page\n', 20)


def test_host_port_of_a_pod():
    """A pod with a host port reaches itself by it. Its Service sees who asks, the pods of its own node too."""
    node = get('-n', NS, 'pod', 'on0')['spec']['nodeName']
    script = ("mkdir -p /tmp/cgi-bin; printf '#!/bin/sh\\necho Content-Type: text/plain\\necho\\necho :$REMOTE_ADDR\\n' > /tmp/cgi-bin/who; "
              'chmod +x /tmp/cgi-bin/who; echo page > /tmp/index.html; exec httpd -f -p 8080 -h /tmp')
    who = json.loads(pod('who', script, NS, nodeName=node))
    who['spec']['containers'][0]['ports'] = [{'containerPort': 8080, 'hostPort': PORT + 1}]
    kubectl('apply', '-f', '-', stdin=json.dumps(who))
    kubectl('-n', NS, 'expose', 'pod', 'who', '--port=80', '--target-port=8080')
    running('who', NS)
    service = get('-n', NS, 'service', 'who')['spec']['clusterIP']
    host = get('-n', NS, 'pod', 'who')['status']['hostIP']
    wait('the pod reaches itself by its host port', lambda: page_in('who', host, PORT + 1) == 'page\n', 20)
    for name in ('on0', 'on1'):
        ip = get('-n', NS, 'pod', name)['status']['podIP']
        wait(f'{name} is seen as {ip}', lambda: page_in(name, service, 80, '/cgi-bin/who').strip('[]\n').endswith(f':{ip}'), 20)
    wait('the pod reaches itself by its Service', lambda: page_in('who', service, 80) == 'page\n', 20)
    kubectl('-n', NS, 'delete', 'pod', 'who', '--wait')


def test_back_to_one():
    """Nothing is left of three nodes."""
    kubectl('delete', 'namespace', NS, '--timeout=120s', timeout=150)
    pids = components()
    sh(SKIFF, 'down', '--data-dir', DATA)
    nothing_is_left(pids)
    sh(SKIFF, 'up', '--data-dir', DATA, '--nodes', '1')
    # A node that never comes back is removed by itself too, after a minute or so.
    kubectl('delete', 'node', *(n['metadata']['name'] for n in get('nodes')['items'] if n['metadata']['name'].endswith(('-2', '-3'))))


if __name__ == '__main__':
    run(sys.modules[__name__])
