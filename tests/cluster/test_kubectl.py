#!/usr/bin/env python3
"""kubectl's verbs on a running cluster, as a user types them."""
import json
import os
import subprocess
import sys
import tempfile
import time

from cluster import (IMAGE, KUBECONFIG, KUBECTL, Failed, expect, get, kubectl, kubectl_minor, namespace, pod, run, running, sh, wait)

NS = 'verbs'


def web(replicas=2, image=IMAGE, extra=None):
    return json.dumps({
        'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': 'web', 'namespace': NS, 'labels': {'app': 'web'}},
        'spec': {'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}},
                 'template': {'metadata': {'labels': {'app': 'web'}}, 'spec': {
                     'terminationGracePeriodSeconds': 1,
                     'containers': [{'name': 'web', 'image': image, 'command': ['httpd', '-f', '-p', '8080', '-h', '/etc'],
                                     'ports': [{'containerPort': 8080}], **(extra or {})}]}}}})


def test_setup():
    namespace(NS)


def test_version_and_discovery():
    expect('v1.36' in kubectl('version'), 'server version')
    expect('is running at' in kubectl('cluster-info'), 'cluster-info')
    resources = kubectl('api-resources')
    for name in ('pods', 'deployments', 'networkpolicies', 'customresourcedefinitions'):
        expect(name in resources, f'{name} in api-resources')
    versions = kubectl('api-versions').split()
    for v in ('v1', 'apps/v1', 'batch/v1', 'resource.k8s.io/v1'):
        expect(v in versions, f'{v} in api-versions')


def test_explain():
    text = kubectl('explain', 'deployment.spec.strategy')
    expect('rollingUpdate' in text and 'KIND:' in text, 'explain')
    expect('containers' in kubectl('explain', 'pod.spec', '--recursive'), 'explain --recursive')


def test_apply_and_get_forms():
    kubectl('apply', '-f', '-', stdin=web())
    kubectl('-n', NS, 'rollout', 'status', 'deployment/web', '--timeout=60s')
    expect('2/2' in kubectl('-n', NS, 'get', 'deployment', 'web'), 'table')
    expect('CONTAINERS' in kubectl('-n', NS, 'get', 'deployment', 'web', '-o', 'wide'), 'wide')
    expect('kind: Deployment' in kubectl('-n', NS, 'get', 'deployment', 'web', '-o', 'yaml'), 'yaml')
    expect(kubectl('-n', NS, 'get', 'deployment', 'web', '-o', 'name').strip() == 'deployment.apps/web', 'name')
    expect(kubectl('-n', NS, 'get', 'deployment', 'web', '-o', 'jsonpath={.spec.replicas}') == '2', 'jsonpath')
    expect(kubectl('-n', NS, 'get', 'pods', '-o', 'custom-columns=N:.metadata.name', '--no-headers').count('web-') == 2, 'custom-columns')
    expect(kubectl('-n', NS, 'get', 'pods', '-o', 'go-template={{len .items}}') == '2', 'go-template')
    expect('app=web' in kubectl('-n', NS, 'get', 'pods', '--show-labels'), '--show-labels')
    expect(NS in kubectl('get', 'pods', '-A'), '-A')
    kubectl('-n', NS, 'get', 'pods', '--sort-by=.metadata.name')
    expect('Running' in kubectl('-n', NS, 'describe', 'pods'), 'describe pods')
    expect('web' in kubectl('-n', NS, 'describe', 'deployment', 'web'), 'describe deployment')
    expect(not kubectl('-n', NS, 'get', 'pods', '--field-selector=status.phase=Failed', '-o', 'name'), 'field selector')


def test_get_watch():
    p = subprocess.Popen([KUBECTL, '-n', NS, 'get', 'configmaps', '-w', '-o', 'name'], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'KUBECONFIG': KUBECONFIG})
    try:
        expect(p.stdout.readline().strip() == 'configmap/kube-root-ca.crt', 'first line of the watch')
        kubectl('-n', NS, 'create', 'configmap', 'seen', '--from-literal=a=b')
        expect(p.stdout.readline().strip() == 'configmap/seen', 'watch sees the new object')
    finally:
        p.kill()
        p.wait()


def test_create_kinds():
    for argv in (['configmap', 'cm', '--from-literal=k=v'], ['secret', 'generic', 'sec', '--from-literal=k=v'],
                 ['serviceaccount', 'sa'], ['role', 'r', '--verb=get', '--resource=pods'],
                 ['rolebinding', 'rb', '--role=r', f'--serviceaccount={NS}:sa'], ['quota', 'q', '--hard=pods=50'],
                 ['service', 'clusterip', 'svc', '--tcp=80:8080'], ['ingress', 'ing', '--rule=a.example/*=svc:80'],
                 ['poddisruptionbudget', 'pdb', '--selector=app=none', '--min-available=1'],
                 ['cronjob', 'cj', f'--image={IMAGE}', '--schedule=0 0 1 1 *', '--', 'true']):
        if argv[0] not in ('poddisruptionbudget', 'cronjob') or kubectl_minor() >= 21:  # before: v1beta1, which v1.25 removed
            kubectl('-n', NS, 'create', *argv)
    code, text = kubectl('-n', NS, 'create', 'configmap', 'cm', check=False)
    expect(code != 0 and 'already exists' in text, f'second create: {text}')
    if kubectl_minor() >= 24:
        expect(len(kubectl('-n', NS, 'create', 'token', 'sa').split('.')) == 3, 'create token')


def test_server_side_apply_and_diff():
    cm = json.dumps({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'ssa', 'namespace': NS}, 'data': {'a': '1'}})
    kubectl('apply', '--server-side', '-f', '-', stdin=cm)
    code, text = kubectl('diff', '-f', '-', stdin=cm.replace('"1"', '"2"'), check=False)
    expect(code == 1 and '2' in text, f'diff: {code} {text}')
    code, text = kubectl('apply', '--server-side', '--field-manager=other', '-f', '-', stdin=cm.replace('"1"', '"3"'), check=False)
    expect(code != 0 and 'conflict' in text.lower(), f'conflict: {text}')
    kubectl('apply', '--server-side', '--field-manager=other', '--force-conflicts', '-f', '-', stdin=cm.replace('"1"', '"3"'))
    expect(get('-n', NS, 'configmap', 'ssa')['data']['a'] == '3', 'forced apply')


def test_patches_edit_replace():
    kubectl('-n', NS, 'patch', 'configmap', 'cm', '-p', '{"data":{"s":"1"}}')
    kubectl('-n', NS, 'patch', 'configmap', 'cm', '--type=merge', '-p', '{"data":{"k":null}}')
    kubectl('-n', NS, 'patch', 'configmap', 'cm', '--type=json', '-p', '[{"op":"add","path":"/data/j","value":"2"}]')
    expect(get('-n', NS, 'configmap', 'cm')['data'] == {'s': '1', 'j': '2'}, 'patches')
    with tempfile.NamedTemporaryFile('w', suffix='.sh', delete=False) as f:
        f.write('#!/bin/sh\nsed -i "s/j: \\"2\\"/j: \\"3\\"/" "$1"\n')
    os.chmod(f.name, 0o755)
    try:
        kubectl('-n', NS, 'edit', 'configmap', 'cm', env={'KUBE_EDITOR': f.name})
    finally:
        os.unlink(f.name)
    expect(get('-n', NS, 'configmap', 'cm')['data']['j'] == '3', 'edit')
    cm = get('-n', NS, 'configmap', 'cm')
    cm['data'] = {'r': '1'}
    kubectl('replace', '-f', '-', stdin=json.dumps(cm))
    expect(get('-n', NS, 'configmap', 'cm')['data'] == {'r': '1'}, 'replace')


def test_label_annotate():
    kubectl('-n', NS, 'label', 'configmap', 'cm', 'x=y')
    kubectl('-n', NS, 'annotate', 'configmap', 'cm', 'note=hi')
    expect('cm' in kubectl('-n', NS, 'get', 'configmaps', '-l', 'x in (y,z)', '-o', 'name'), 'label selector')
    kubectl('-n', NS, 'label', 'configmap', 'cm', 'x-')
    expect(not kubectl('-n', NS, 'get', 'configmaps', '-l', 'x', '-o', 'name'), 'label removed')


def test_scale_autoscale_rollout():
    kubectl('-n', NS, 'scale', 'deployment/web', '--replicas=3')
    wait('three replicas', lambda: get('-n', NS, 'deployment', 'web')['status'].get('readyReplicas') == 3)
    kubectl('-n', NS, 'autoscale', 'deployment/web', '--min=2', '--max=3', '--cpu-percent=80')
    kubectl('-n', NS, 'delete', 'hpa', 'web')
    kubectl('-n', NS, 'set', 'env', 'deployment/web', 'A=1')
    kubectl('-n', NS, 'rollout', 'status', 'deployment/web', '--timeout=90s')
    expect('2' in kubectl('-n', NS, 'rollout', 'history', 'deployment/web'), 'history')
    kubectl('-n', NS, 'rollout', 'undo', 'deployment/web')
    kubectl('-n', NS, 'rollout', 'status', 'deployment/web', '--timeout=90s')
    expect('A' not in json.dumps(get('-n', NS, 'deployment', 'web')['spec']['template']['spec']['containers'][0].get('env', [])), 'undo')
    kubectl('-n', NS, 'rollout', 'pause', 'deployment/web')
    kubectl('-n', NS, 'rollout', 'resume', 'deployment/web')
    kubectl('-n', NS, 'rollout', 'restart', 'deployment/web')
    kubectl('-n', NS, 'rollout', 'status', 'deployment/web', '--timeout=90s')
    kubectl('-n', NS, 'set', 'image', 'deployment/web', f'web={IMAGE}')


def test_expose_and_reach():
    kubectl('-n', NS, 'expose', 'deployment', 'web', '--port=80', '--target-port=8080')
    ip = get('-n', NS, 'service', 'web')['spec']['clusterIP']
    wait('the Service answers', lambda: 'root' in sh('curl', '-fsS', '-m', '3', f'http://{ip}/passwd'))


def test_run_interactive():
    out = kubectl('-n', NS, 'run', 'once', '--rm', '-i', '--restart=Never', f'--image={IMAGE}', '--', 'sh', '-c', 'read x; echo got $x',
                  stdin='hello\n')
    expect('got hello' in out, f'run -i: {out}')


def test_logs():
    kubectl('apply', '-f', '-', stdin=pod('talk', 'i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done', NS))
    running('talk', NS)
    wait('lines', lambda: 'line 3' in kubectl('-n', NS, 'logs', 'talk'))
    expect(len(kubectl('-n', NS, 'logs', 'talk', '--tail=2').splitlines()) == 2, '--tail')
    kubectl('-n', NS, 'logs', 'talk', '--since=1h', '--timestamps')
    kubectl('-n', NS, 'logs', '-l', 'app=talk', '--all-containers', '--prefix')
    p = subprocess.Popen([KUBECTL, '-n', NS, 'logs', '-f', '--tail=1', 'talk'], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'KUBECONFIG': KUBECONFIG})
    try:
        first = p.stdout.readline()
        expect(p.stdout.readline() != first, 'logs -f goes on')
    finally:
        p.kill()
        p.wait()


def test_logs_previous():
    kubectl('apply', '-f', '-', stdin=pod('crash', 'echo before the end; exit 3', NS))
    wait('restart', lambda: get('-n', NS, 'pod', 'crash')['status']['containerStatuses'][0]['restartCount'] >= 1, 90)
    expect('before the end' in kubectl('-n', NS, 'logs', '--previous', 'crash'), 'logs --previous')
    wait('CrashLoopBackOff', lambda: 'CrashLoopBackOff' in kubectl('-n', NS, 'get', 'pod', 'crash'))
    kubectl('-n', NS, 'delete', 'pod', 'crash', '--grace-period=0', '--force')


def test_exec_both_protocols():
    for ws in ('true', 'false'):
        env = {'KUBECTL_REMOTE_COMMAND_WEBSOCKETS': ws}
        expect(kubectl('-n', NS, 'exec', 'talk', '--', 'echo', 'hi', env=env).strip() == 'hi', f'exec, websockets {ws}')
        expect(kubectl('-n', NS, 'exec', '-i', 'talk', '--', 'cat', stdin='data', env=env) == 'data', f'exec -i, websockets {ws}')
        code, text = kubectl('-n', NS, 'exec', 'talk', '--', 'sh', '-c', 'exit 7', check=False, env=env)
        expect(code == 7, f'exit code {code}: {text}')


def test_exec_tty():
    out = sh('script', '-qec', f'{KUBECTL} -n {NS} exec -it talk -- sh -c "tty && stty size"', '/dev/null', stdin='')
    expect('/dev/pts' in out, f'exec -it: {out}')


def test_attach():
    p = subprocess.Popen([KUBECTL, '-n', NS, 'attach', 'talk'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                         env={**os.environ, 'KUBECONFIG': KUBECONFIG})
    try:
        expect('line' in p.stdout.readline(), 'attach')
    finally:
        p.kill()
        p.wait()


def test_cp():
    with tempfile.TemporaryDirectory() as d:
        open(f'{d}/a', 'w').write('x' * 100000)
        kubectl('-n', NS, 'cp', f'{d}/a', 'talk:/tmp/b')
        kubectl('-n', NS, 'cp', 'talk:/tmp/b', f'{d}/c')
        expect(open(f'{d}/c').read() == 'x' * 100000, 'cp there and back')


def port_forward(env):
    name = get('-n', NS, 'pods', '-l', 'app=web')['items'][0]['metadata']['name']
    p = subprocess.Popen([KUBECTL, '-n', NS, 'port-forward', f'pod/{name}', ':8080'], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'KUBECONFIG': KUBECONFIG, **env})
    try:
        port = p.stdout.readline().split(':')[1].split()[0]
        for _ in range(3):
            expect('root' in sh('curl', '-fsS', '-m', '5', f'http://127.0.0.1:{port}/passwd'), 'port-forward')
    finally:
        p.kill()
        p.wait()


def test_port_forward_websocket():
    port_forward({'KUBECTL_PORT_FORWARD_WEBSOCKETS': 'true'})


def test_port_forward_spdy():
    port_forward({'KUBECTL_PORT_FORWARD_WEBSOCKETS': 'false'})


def test_proxy():
    p = subprocess.Popen([KUBECTL, 'proxy', '--port=0'], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'KUBECONFIG': KUBECONFIG})
    try:
        port = p.stdout.readline().strip().rsplit(':', 1)[1]
        expect('v1.36' in sh('curl', '-fsS', '-m', '5', f'http://127.0.0.1:{port}/version'), 'proxy /version')
        expect('root' in sh('curl', '-fsS', '-m', '5', f'http://127.0.0.1:{port}/api/v1/namespaces/{NS}/services/web:80/proxy/passwd'),
               'service proxy')
    finally:
        p.kill()
        p.wait()


def test_wait_events_top():
    kubectl('-n', NS, 'wait', '--for=condition=Ready', 'pod/talk', '--timeout=30s')
    if kubectl_minor() >= 26:
        expect('Started' in kubectl('-n', NS, 'events', '--for', 'pod/talk'), 'events')
    expect('Started' in kubectl('-n', NS, 'get', 'events', '--field-selector=involvedObject.name=talk'), 'get events')
    code, text = kubectl('top', 'nodes', check=False)
    expect(code == 0 or 'Metrics API not available' in text, f'top: {text}')


def test_auth():
    expect(kubectl('auth', 'can-i', 'create', 'pods').strip() == 'yes', 'can-i')
    code, text = kubectl('auth', 'can-i', 'delete', 'nodes', '--as', f'system:serviceaccount:{NS}:sa', check=False)
    expect(code == 1 and 'no' in text.split(), f'can-i as a service account: {text}')
    if kubectl_minor() >= 28:
        expect('kubernetes-admin' in kubectl('auth', 'whoami'), 'whoami')
    kubectl('auth', 'can-i', '--list')


def test_certificate():
    with tempfile.TemporaryDirectory() as d:
        sh('openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', f'{d}/k', '-subj',
           '/CN=jane/O=dev', '-out', f'{d}/csr')
        request = sh('base64', '-w0', f'{d}/csr')
    kubectl('delete', 'csr', 'jane', '--ignore-not-found')
    kubectl('create', '-f', '-', stdin=json.dumps({
        'apiVersion': 'certificates.k8s.io/v1', 'kind': 'CertificateSigningRequest', 'metadata': {'name': 'jane'},
        'spec': {'request': request, 'signerName': 'kubernetes.io/kube-apiserver-client', 'usages': ['client auth']}}))
    kubectl('certificate', 'approve', 'jane')
    wait('certificate', lambda: get('csr', 'jane')['status']['certificate'], 30)
    kubectl('delete', 'csr', 'jane')


def test_cordon_drain_taint():
    node = get('nodes')['items'][-1]['metadata']['name']
    kubectl('cordon', node)
    try:
        expect('SchedulingDisabled' in kubectl('get', 'node', node), 'cordon')
        kubectl('drain', node, '--ignore-daemonsets', '--delete-emptydir-data', '--force', '--pod-selector=app=talk', '--timeout=60s')
        code, _ = kubectl('-n', NS, 'get', 'pod', 'talk', check=False)
        expect(code != 0, 'drained pod is gone')
    finally:
        kubectl('uncordon', node)
    kubectl('taint', 'nodes', node, 'k=v:PreferNoSchedule')
    kubectl('taint', 'nodes', node, 'k-')


def test_debug():
    if kubectl_minor() < 22:  # before: a kind EphemeralContainers, which never left alpha
        return
    kubectl('apply', '-f', '-', stdin=pod('target', 'sleep 600', NS))
    running('target', NS)
    kubectl('-n', NS, 'debug', 'target', f'--image={IMAGE}', '--target=c', '-c', 'dbg', '--', 'sh', '-c', 'echo debugging')
    wait('ephemeral container', lambda: 'debugging' in kubectl('-n', NS, 'logs', 'target', '-c', 'dbg'))


def test_delete_cascades():
    ids = [p['metadata']['name'] for p in get('-n', NS, 'pods', '-l', 'app=web')['items']]
    expect(ids, 'pods of web')
    kubectl('-n', NS, 'delete', 'deployment', 'web', '--cascade=orphan')
    time.sleep(1)
    expect(get('-n', NS, 'replicasets', '-l', 'app=web')['items'], 'orphaned replica sets stay')
    kubectl('-n', NS, 'delete', 'replicasets', '-l', 'app=web', '--cascade=foreground', '--timeout=60s')
    wait('pods gone', lambda: not get('-n', NS, 'pods', '-l', 'app=web')['items'])


def test_kustomize():
    with tempfile.TemporaryDirectory() as d:
        open(f'{d}/kustomization.yaml', 'w').write(f'namespace: {NS}\nnamePrefix: k-\nconfigMapGenerator:\n- name: gen\n  literals: [a=b]\n')
        kubectl('apply', '-k', d)
    expect('k-gen' in kubectl('-n', NS, 'get', 'configmaps', '-o', 'name'), 'kustomize')


def test_bad_manifests():
    code, text = kubectl('apply', '-f', '-', check=False,
                         stdin=json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'x', 'namespace': NS}, 'spec': {'containerz': []}}))
    expect(code != 0 and 'containerz' in text, f'unknown field: {text}')
    code, text = kubectl('create', '-f', '-', '--validate=false', check=False,
                         stdin=json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'X_', 'namespace': NS}, 'spec': {'containers': []}}))
    expect(code != 0 and 'metadata.name' in text and 'spec.containers' in text, f'invalid: {text}')


def test_namespace_goes():
    kubectl('delete', 'namespace', NS, '--timeout=120s', timeout=150)


if __name__ == '__main__':
    run(sys.modules[__name__])
