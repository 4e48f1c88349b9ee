"""What the kubelet does for pods, seen through kubectl on the running cluster."""
import json
import os
import time

from cluster import DATA, IMAGE, Failed, expect, get, kubectl, namespace, run, sh, wait, replace_sub

NS = 'kubelet-test'


def make(name, spec, meta=None):
    for c in spec.get('initContainers', []) + spec['containers']:
        c.setdefault('image', IMAGE)
        c.setdefault('imagePullPolicy', 'IfNotPresent')
        if isinstance(c.get('command'), str):
            c['command'] = ['sh', '-c', c['command']]
    spec.setdefault('terminationGracePeriodSeconds', 1)
    kubectl('apply', '-f', '-', stdin=json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'namespace': NS, **(meta or {})}, 'spec': spec}))


def status(name):
    return get('-n', NS, 'pod', name)['status']


def phase(name, want, timeout=30):
    def look():
        s = status(name)
        if s.get('phase') == want:
            return s
        raise Failed(json.dumps(s)[:1500])
    return wait(f'pod {name} {want}', look, timeout)


def logs(name, *args):
    return kubectl('-n', NS, 'logs', name, *args)


def once(name, command, **spec):
    """Runs one container to its end; its output."""
    container = {'name': 'c', 'command': command, **spec.pop('container', {})}
    make(name, {'restartPolicy': 'Never', 'containers': [container], **spec})
    phase(name, 'Succeeded')
    return logs(name)


def condition(s, kind):
    for c in s.get('conditions', []):
        if c['type'] == kind:
            return c
    raise Failed(f'no condition {kind} yet')


def waiting(name, reason, timeout=30):
    def look():
        for c in status(name).get('containerStatuses', []) + status(name).get('initContainerStatuses', []):
            w = c['state'].get('waiting', {})
            if w.get('reason') == reason:
                return w.get('message', ' ') or ' '
        raise Failed(json.dumps(status(name))[:1500])
    return wait(f'{name} {reason}', look, timeout)


def events(name):
    return [e for e in get('-n', NS, 'events')['items'] if e['involvedObject']['name'] == name]


def event(name, reason, text='', timeout=20):
    return wait(f'event {reason} of {name}', lambda: [e for e in events(name) if e['reason'] == reason and text in e['message']], timeout)[0]


def test_setup():
    namespace(NS)


def test_order_of_inits_and_sidecars():
    """Init containers one after the other, a sidecar starts beside the later ones and ends last."""
    make('order', {'restartPolicy': 'Never', 'volumes': [{'name': 'v', 'emptyDir': {}}],
                   'initContainers': [
                       {'name': 'one', 'command': 'echo one >> /v/log', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]},
                       {'name': 'side', 'restartPolicy': 'Always', 'command': 'echo side >> /v/log; touch /v/up; trap "exit 0" TERM; while :; do sleep 0.1; done',
                        'volumeMounts': [{'name': 'v', 'mountPath': '/v'}], 'startupProbe': {'exec': {'command': ['test', '-e', '/v/up']}, 'periodSeconds': 1}},
                       {'name': 'two', 'command': 'echo two >> /v/log', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}],
                   'containers': [{'name': 'main', 'command': 'cat /v/log', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}]})
    s = phase('order', 'Succeeded')
    expect(logs('order', '-c', 'main').split() == ['one', 'side', 'two'], logs('order', '-c', 'main'))
    expect(condition(s, 'Initialized')['status'] == 'True', str(s))
    expect(all('terminated' in c['state'] for c in s['initContainerStatuses']), str(s))


def test_init_failure():
    make('initfail', {'restartPolicy': 'Never', 'initContainers': [{'name': 'i', 'command': 'exit 3'}], 'containers': [{'name': 'c', 'command': 'true'}]})
    s = phase('initfail', 'Failed')
    expect(s['initContainerStatuses'][0]['state']['terminated']['exitCode'] == 3, str(s))
    expect(s['containerStatuses'][0]['state']['waiting']['reason'] == 'PodInitializing', str(s))


def test_crash_loop():
    make('crash', {'containers': [{'name': 'c', 'command': 'echo dying > /dev/termination-log; exit 7'}]})
    text = waiting('crash', 'CrashLoopBackOff')
    expect(text.startswith('back-off 10s restarting failed container=c pod=crash_' + NS + '('), text)
    c = status('crash')['containerStatuses'][0]
    expect(c['lastState']['terminated']['exitCode'] == 7 and c['lastState']['terminated']['message'] == 'dying\n' and c['restartCount'] == 1, str(c))
    event('crash', 'BackOff', 'Back-off restarting failed container c in pod crash_')


def test_termination_message_from_logs():
    make('fallback', {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'command': 'echo last words; exit 1', 'terminationMessagePolicy': 'FallbackToLogsOnError'}]})
    t = phase('fallback', 'Failed')['containerStatuses'][0]['state']['terminated']
    expect(t['message'] == 'last words\n' and t['reason'] == 'Error', str(t))


def test_oom():
    make('oom', {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'command': 'x=a; while :; do x=$x$x; done',
                                                           'resources': {'limits': {'memory': '16Mi'}}}]})
    t = phase('oom', 'Failed')['containerStatuses'][0]['state']['terminated']
    expect(t['reason'] == 'OOMKilled' and t['exitCode'] in (137, 2), str(t))


def test_oom_of_a_child():
    """Under cgroup v2 a container that runs out of memory ends as a whole, under v1 only the process that asked for more."""
    make('oomchild', {'restartPolicy': 'Never', 'containers': [
        {'name': 'c', 'command': "sh -c 'x=a; while :; do x=$x$x; done'; echo survived", 'resources': {'limits': {'memory': '16Mi'}}}]})
    s = wait('its end', lambda: (lambda t: t['phase'] in ('Succeeded', 'Failed') and t)(status('oomchild')), 30)
    t = s['containerStatuses'][0]['state']['terminated']
    if os.path.exists('/sys/fs/cgroup/cgroup.controllers'):
        expect(t['reason'] == 'OOMKilled' and t['exitCode'] == 137 and 'survived' not in logs('oomchild'), str(t))
    else:
        expect('survived' in logs('oomchild'), str(t))


def test_probes():
    make('probes', {'containers': [
        {'name': 'c', 'command': 'touch /tmp/ok; while :; do sleep 0.2; done',
         'readinessProbe': {'exec': {'command': ['test', '-e', '/tmp/ready']}, 'periodSeconds': 1, 'failureThreshold': 1},
         'livenessProbe': {'exec': {'command': ['test', '-e', '/tmp/ok']}, 'periodSeconds': 1, 'failureThreshold': 1},
         'startupProbe': {'exec': {'command': ['true']}, 'periodSeconds': 1}}]})
    s = phase('probes', 'Running')
    expect(condition(s, 'Ready')['status'] == 'False', str(s))
    event('probes', 'Unhealthy', 'Readiness probe failed')
    kubectl('-n', NS, 'exec', 'probes', '--', 'touch', '/tmp/ready')
    wait('ready', lambda: condition(status('probes'), 'Ready')['status'] == 'True', 10)
    kubectl('-n', NS, 'exec', 'probes', '--', 'rm', '/tmp/ready')
    wait('not ready', lambda: condition(status('probes'), 'Ready')['status'] == 'False', 10)
    kubectl('-n', NS, 'exec', 'probes', '--', 'rm', '/tmp/ok')
    wait('restarted', lambda: status('probes')['containerStatuses'][0]['restartCount'] == 1, 20)
    event('probes', 'Killing', 'failed liveness probe, will be restarted')


def test_http_and_tcp_probes():
    make('web', {'containers': [{'name': 'c', 'command': 'mkdir /w; echo hi > /w/index.html; exec busybox httpd -f -p 8080 -h /w', 'ports': [{'name': 'http', 'containerPort': 8080}],
                                 'readinessProbe': {'httpGet': {'path': '/index.html', 'port': 'http'}, 'periodSeconds': 1},
                                 'livenessProbe': {'tcpSocket': {'port': 8080}, 'periodSeconds': 1}}]})
    wait('ready', lambda: condition(status('web'), 'Ready')['status'] == 'True', 20)
    make('web404', {'containers': [{'name': 'c', 'command': 'mkdir /w; exec busybox httpd -f -p 8080 -h /w',
                                    'livenessProbe': {'httpGet': {'path': '/none', 'port': 8080}, 'periodSeconds': 1, 'failureThreshold': 2}}]})
    event('web404', 'Unhealthy', 'Liveness probe failed: HTTP probe failed with statuscode: 404')
    wait('restarted', lambda: status('web404')['containerStatuses'][0]['restartCount'] >= 1, 20)


def test_readiness_while_ending():
    """A pod that ends is still asked whether it is ready, so that its endpoint can leave first."""
    make('leaving', {'terminationGracePeriodSeconds': 60, 'containers': [
        {'name': 'c', 'command': 'touch /tmp/ready; trap "rm -f /tmp/ready" TERM; while :; do sleep 0.2; done',
         'readinessProbe': {'exec': {'command': ['test', '-e', '/tmp/ready']}, 'periodSeconds': 1, 'failureThreshold': 1}}]})
    wait('ready', lambda: condition(status('leaving'), 'Ready')['status'] == 'True', 20)
    kubectl('-n', NS, 'delete', 'pod', 'leaving', '--wait=false')
    wait('not ready', lambda: condition(status('leaving'), 'Ready')['status'] == 'False', 20)
    expect('running' in status('leaving')['containerStatuses'][0]['state'], 'it ended')
    kubectl('-n', NS, 'delete', 'pod', 'leaving', '--grace-period=1', timeout=30)


def test_hooks():
    """postStart runs before the container counts as started; preStop within the grace period."""
    make('hooks', {'terminationGracePeriodSeconds': 10, 'volumes': [{'name': 'h', 'hostPath': {'path': '/tmp/skiff-hooks', 'type': 'DirectoryOrCreate'}}],
                   'containers': [{'name': 'c', 'command': 'trap "echo term >> /h/log; exit 0" TERM; while :; do sleep 0.1; done', 'volumeMounts': [{'name': 'h', 'mountPath': '/h'}],
                                   'lifecycle': {'postStart': {'exec': {'command': ['sh', '-c', 'echo post > /h/log']}},
                                                 'preStop': {'exec': {'command': ['sh', '-c', 'echo pre >> /h/log']}}}}]})
    phase('hooks', 'Running')
    kubectl('-n', NS, 'delete', 'pod', 'hooks')
    with open('/tmp/skiff-hooks/log') as f:
        text = f.read().split()
    sh('rm', '-rf', '/tmp/skiff-hooks')
    expect(text == ['post', 'pre', 'term'], str(text))
    make('badhook', {'containers': [{'name': 'c', 'command': 'sleep 1000', 'lifecycle': {'postStart': {'exec': {'command': ['false']}}}}]})
    event('badhook', 'FailedPostStartHook')
    kubectl('-n', NS, 'delete', 'pod', 'badhook', '--force')


def test_grace_period():
    make('stubborn', {'terminationGracePeriodSeconds': 2, 'containers': [{'name': 'c', 'command': 'trap "" TERM; while :; do sleep 0.1; done'}]})
    phase('stubborn', 'Running')
    start = time.monotonic()
    kubectl('-n', NS, 'delete', 'pod', 'stubborn')
    took = time.monotonic() - start
    expect(1.5 < took < 6, f'{took} s')


def test_deletion_while_waiting_ends_sooner():
    """A second, shorter deletion ends what a long grace period keeps."""
    make('long', {'terminationGracePeriodSeconds': 300, 'containers': [{'name': 'c', 'command': 'trap "" TERM; while :; do sleep 0.1; done'}]})
    phase('long', 'Running')
    kubectl('-n', NS, 'delete', 'pod', 'long', '--wait=false')
    time.sleep(0.5)
    kubectl('-n', NS, 'delete', 'pod', 'long', '--grace-period=1', '--timeout=20s')


def test_env():
    kubectl('-n', NS, 'create', 'configmap', 'env', '--from-literal=A=1', '--from-literal=B=2')
    kubectl('-n', NS, 'create', 'secret', 'generic', 'env', '--from-literal=S=hidden')
    out = once('env', 'env', container={
        'envFrom': [{'configMapRef': {'name': 'env'}, 'prefix': 'CM_'}, {'secretRef': {'name': 'missing', 'optional': True}}],
        'resources': {'limits': {'cpu': '500m', 'memory': '64Mi'}},
        'env': [{'name': 'X', 'value': '$(CM_A)-$(NOPE)-$$(CM_A)'}, {'name': 'S', 'valueFrom': {'secretKeyRef': {'name': 'env', 'key': 'S'}}},
                {'name': 'IP', 'valueFrom': {'fieldRef': {'fieldPath': 'status.podIP'}}}, {'name': 'NODE', 'valueFrom': {'fieldRef': {'fieldPath': 'spec.nodeName'}}},
                {'name': 'CPU', 'valueFrom': {'resourceFieldRef': {'resource': 'limits.cpu', 'divisor': '1m'}}}]})
    env = dict(line.split('=', 1) for line in out.splitlines() if '=' in line)
    expect(env['CM_A'] == '1' and env['CM_B'] == '2' and env['S'] == 'hidden' and env['CPU'] == '500', out)
    expect(env['X'] == '1-$(NOPE)-$(CM_A)', env['X'])
    expect(env['IP'].startswith('10.') and env['KUBERNETES_SERVICE_HOST'], out)


def test_config_error():
    make('noconf', {'containers': [{'name': 'c', 'command': 'true', 'env': [{'name': 'A', 'valueFrom': {'configMapKeyRef': {'name': 'none', 'key': 'a'}}}]}]})
    text = waiting('noconf', 'CreateContainerConfigError')
    expect('configmaps "none" not found' in text, text)


def test_images():
    make('never', {'containers': [{'name': 'c', 'image': 'localhost:1/none:1', 'imagePullPolicy': 'Never'}]})
    expect('is not present with pull policy of Never' in waiting('never', 'ErrImageNeverPull'), '')
    make('pull', {'containers': [{'name': 'c', 'image': 'localhost:1/none:1'}]})
    expect('Back-off pulling image "localhost:1/none:1"' in waiting('pull', 'ImagePullBackOff', 40), '')
    event('pull', 'Failed', 'Error: ErrImagePull')
    make('badname', {'containers': [{'name': 'c', 'image': 'UPPER CASE'}]})
    expect('invalid reference format' in waiting('badname', 'InvalidImageName'), '')
    kubectl('-n', NS, 'delete', 'pod', 'never', 'pull', 'badname', '--timeout=20s')


def test_config_map_volume_follows():
    kubectl('-n', NS, 'create', 'configmap', 'vol', '--from-literal=a=1', '--from-literal=b=2')
    make('vol', {'volumes': [{'name': 'v', 'configMap': {'name': 'vol', 'items': [{'key': 'a', 'path': 'x/y', 'mode': 0o400}]}}],
                 'containers': [{'name': 'c', 'command': 'while :; do sleep 0.2; done', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}, {'name': 'v', 'mountPath': '/sub', 'subPath': 'x/y'}]}]})
    phase('vol', 'Running')
    expect(kubectl('-n', NS, 'exec', 'vol', '--', 'cat', '/v/x/y') == '1', 'content')
    expect(kubectl('-n', NS, 'exec', 'vol', '--', 'sh', '-c', 'stat -L -c %a /v/x/y').strip() == '400', 'mode')
    kubectl('-n', NS, 'patch', 'configmap', 'vol', '-p', '{"data":{"a":"new"}}')
    wait('the new content', lambda: kubectl('-n', NS, 'exec', 'vol', '--', 'cat', '/v/x/y') == 'new', 10)
    expect(kubectl('-n', NS, 'exec', 'vol', '--', 'cat', '/sub') == '1', 'a subPath stays as it was')


def test_missing_config_map_appears():
    make('late', {'restartPolicy': 'Never', 'volumes': [{'name': 'v', 'secret': {'secretName': 'late'}}],
                  'containers': [{'name': 'c', 'command': 'cat /v/k', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}]})
    event('late', 'FailedMount', 'MountVolume.SetUp failed for volume "v"')
    kubectl('-n', NS, 'create', 'secret', 'generic', 'late', '--from-literal=k=here')
    phase('late', 'Succeeded')
    expect(logs('late') == 'here', logs('late'))


def test_projected_and_downward():
    out = once('proj', 'cat /p/labels; echo; cat /p/cpu; echo; cut -c1-3 /p/token; ls -l /p/..data/; stat -f -c %T /p; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace',
               volumes=[{'name': 'p', 'projected': {'sources': [
                   {'downwardAPI': {'items': [{'path': 'labels', 'fieldRef': {'fieldPath': 'metadata.labels'}},
                                              {'path': 'cpu', 'resourceFieldRef': {'containerName': 'c', 'resource': 'requests.cpu', 'divisor': '1m'}}]}},
                   {'serviceAccountToken': {'path': 'token', 'expirationSeconds': 600, 'audience': 'x'}}]}}],
               container={'volumeMounts': [{'name': 'p', 'mountPath': '/p'}], 'resources': {'requests': {'cpu': '150m'}}})
    expect('150' in out and 'eyJ' in out and 'tmpfs' in out and out.endswith(NS), out)


def test_labels_follow():
    make('labels', {'volumes': [{'name': 'd', 'downwardAPI': {'items': [{'path': 'labels', 'fieldRef': {'fieldPath': 'metadata.labels'}}]}}],
                    'containers': [{'name': 'c', 'command': 'while :; do sleep 0.2; done', 'volumeMounts': [{'name': 'd', 'mountPath': '/d'}]}]}, {'labels': {'a': '1'}})
    phase('labels', 'Running')
    kubectl('-n', NS, 'label', 'pod', 'labels', 'b=2')
    wait('new labels', lambda: kubectl('-n', NS, 'exec', 'labels', '--', 'cat', '/d/labels') .startswith('a="1"\nb="2"'), 10)


def test_empty_dirs_and_groups():
    out = once('dirs', 'id -G; stat -c "%a %g" /e /m; stat -f -c %T /m; df -k /m | tail -1; touch /e/f && stat -c %g /e/f',
               securityContext={'runAsUser': 1000, 'fsGroup': 2000, 'supplementalGroups': [3000]},
               volumes=[{'name': 'e', 'emptyDir': {}}, {'name': 'm', 'emptyDir': {'medium': 'Memory', 'sizeLimit': '4Mi'}}],
               container={'volumeMounts': [{'name': 'e', 'mountPath': '/e'}, {'name': 'm', 'mountPath': '/m'}]})
    lines = out.splitlines()
    expect('2000' in lines[0] and '3000' in lines[0], out)
    expect(lines[1] == '2777 2000' and lines[2] == '3777 2000' and lines[3] == 'tmpfs', out)
    expect('4096' in lines[4] and lines[5] == '2000', out)


def test_sub_paths():
    out = once('subs', 'echo $(ls /v); cat /w/made', volumes=[{'name': 'v', 'emptyDir': {}}],
               initContainers=[{'name': 'i', 'command': 'echo x > /v/made', 'env': [{'name': 'P', 'value': 'deep'}],
                                'volumeMounts': [{'name': 'v', 'mountPath': '/v', 'subPathExpr': '$(P)/er'}]}],
               container={'volumeMounts': [{'name': 'v', 'mountPath': '/v'}, {'name': 'v', 'mountPath': '/w', 'subPath': 'deep/er'}]})
    expect(out.split() == ['deep', 'x'], out)
    make('escape', {'restartPolicy': 'Never', 'volumes': [{'name': 'v', 'emptyDir': {}}],
                    'initContainers': [{'name': 'i', 'command': 'ln -s /etc /v/out', 'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}],
                    'containers': [{'name': 'c', 'command': 'true', 'volumeMounts': [{'name': 'v', 'mountPath': '/w', 'subPath': 'out'}]}]})
    expect('leads out of the volume' in waiting('escape', 'CreateContainerConfigError'), 'escape')


def test_host_path_types():
    make('hp', {'volumes': [{'name': 'h', 'hostPath': {'path': '/etc/hostname', 'type': 'Directory'}}], 'containers': [{'name': 'c', 'command': 'true'}]})
    event('hp', 'FailedMount', 'hostPath type check failed: /etc/hostname is not a directory')
    make('nfs', {'volumes': [{'name': 'n', 'nfs': {'server': 'x', 'path': '/'}}], 'containers': [{'name': 'c', 'command': 'true'}]})
    event('nfs', 'FailedMount', 'not supported by this kubelet')
    kubectl('-n', NS, 'delete', 'pod', 'hp', 'nfs', '--timeout=20s')


def test_claims():
    kubectl('apply', '-f', '-', stdin=json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [
        {'apiVersion': 'v1', 'kind': 'PersistentVolume', 'metadata': {'name': 'kubelet-test'},
         'spec': {'capacity': {'storage': '1Mi'}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': '', 'hostPath': {'path': '/tmp/skiff-pv'},
                  'claimRef': {'namespace': NS, 'name': 'claim'}}},
        {'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'metadata': {'name': 'claim', 'namespace': NS},
         'spec': {'accessModes': ['ReadWriteOnce'], 'storageClassName': '', 'volumeName': 'kubelet-test', 'resources': {'requests': {'storage': '1Mi'}}}}]}))
    try:
        once('claim', 'echo kept > /v/f', volumes=[{'name': 'v', 'persistentVolumeClaim': {'claimName': 'claim'}}], container={'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]})
        with open('/tmp/skiff-pv/f') as f:
            expect(f.read() == 'kept\n', 'content')
    finally:
        kubectl('delete', 'pv', 'kubelet-test', '--wait=false')
        sh('rm', '-rf', '/tmp/skiff-pv')


def test_names():
    out = once('names', 'hostname; cat /etc/hosts /etc/resolv.conf', hostname='me', subdomain='sub', hostAliases=[{'ip': '1.2.3.4', 'hostnames': ['a.b', 'c']}],
               dnsPolicy='None', dnsConfig={'nameservers': ['9.9.9.9'], 'searches': ['x.y'], 'options': [{'name': 'ndots', 'value': '2'}]})
    for want in ('me\n', f'me.sub.{NS}.svc.cluster.local\tme', '1.2.3.4\ta.b\tc', 'nameserver 9.9.9.9', 'search x.y', 'options ndots:2'):
        expect(want in out, f'{want!r} in {out}')


def test_security():
    expect(once('caps', 'grep -E "NoNewPrivs|CapEff" /proc/self/status; id -u; touch /x 2>&1; true', container={
        'securityContext': {'runAsUser': 5, 'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}, 'readOnlyRootFilesystem': True}}).split()[:5]
           == ['CapEff:', '0000000000000000', 'NoNewPrivs:', '1', '5'], logs('caps'))
    expect('Read-only file system' in logs('caps'), logs('caps'))
    make('root', {'containers': [{'name': 'c', 'command': 'true', 'securityContext': {'runAsNonRoot': True}}]})
    expect('image will run as root' in waiting('root', 'CreateContainerConfigError'), '')
    make('sysctl', {'securityContext': {'sysctls': [{'name': 'kernel.msgmax', 'value': '10000'}]}, 'containers': [{'name': 'c', 'command': 'true'}]})
    s = phase('sysctl', 'Failed')
    expect(s['reason'] == 'SysctlForbidden', str(s))
    out = once('slashes', 'cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range', securityContext={'sysctls': [
        {'name': 'kernel/shm_rmid_forced', 'value': '1'}, {'name': 'net.ipv4.ip_local_port_range', 'value': '2000 3000'}]})
    expect(out.split() == ['1', '2000', '3000'], out)
    make('os', {'os': {'name': 'windows'}, 'nodeName': get('nodes')['items'][0]['metadata']['name'], 'containers': [{'name': 'c', 'command': 'true'}]})
    s = phase('os', 'Failed')
    expect(s['reason'] == 'PodOSNotSupported', str(s))


def test_redirected_probe():
    """A redirect to elsewhere is not followed: the probe has passed, and an event says what it saw."""
    server = ("while :; do printf 'HTTP/1.1 302 Found\\r\\nLocation: http://192.0.2.99/\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\nhere'"
              " | nc -l -p 8080; done")
    make('redirected', {'containers': [{'name': 'c', 'command': server, 'readinessProbe': {'httpGet': {'path': '/', 'port': 8080}, 'periodSeconds': 1}}]})
    wait('ready', lambda: get('-n', NS, 'pod', 'redirected')['status']['containerStatuses'][0]['ready'])
    event('redirected', 'ProbeWarning', 'Readiness probe warning: Probe terminated redirects, Response body: here')


def test_subpath_is_as_open_as_its_volume():
    out = once('open', 'stat -c %a /v /w', volumes=[{'name': 'v', 'emptyDir': {}}], container={
        'volumeMounts': [{'name': 'v', 'mountPath': '/v'}, {'name': 'v', 'mountPath': '/w', 'subPath': 'new'}]})
    expect(out.split() == ['777', '777'], out)
    out = once('group', 'stat -c "%a %g" /v /w', volumes=[{'name': 'v', 'emptyDir': {'medium': 'Memory'}}], securityContext={'fsGroup': 7}, container={
        'volumeMounts': [{'name': 'v', 'mountPath': '/v'}, {'name': 'v', 'mountPath': '/w', 'subPath': 'new'}]})
    expect(out.split() == ['3777', '7', '3777', '7'], out)


def test_resources_reach_cgroups():
    make('res', {'containers': [{'name': 'c', 'command': 'while :; do sleep 1; done', 'resources': {'requests': {'cpu': '250m', 'memory': '32Mi'}, 'limits': {'cpu': '500m', 'memory': '64Mi'}}}]})
    s = phase('res', 'Running')
    expect(s['qosClass'] == 'Burstable', str(s))
    uid = get('-n', NS, 'pod', 'res')['metadata']['uid']
    found = {}
    for base, _, files in os.walk('/sys/fs/cgroup'):
        if base.endswith(f'pod{uid}'):
            for f in ('cpu.shares', 'cpu.cfs_quota_us', 'memory.limit_in_bytes', 'cpu.weight', 'cpu.max', 'memory.max'):
                if f in files:
                    with open(f'{base}/{f}') as h:
                        found[f] = h.read().strip()
    v1 = found.get('cpu.shares') == '256' and found.get('memory.limit_in_bytes') == '67108864' and found.get('cpu.cfs_quota_us', '50000') == '50000'
    v2 = found.get('cpu.weight') == '10' and found.get('memory.max') == '67108864' and found.get('cpu.max') == '50000 100000'
    expect(v1 or v2, str(found))
    kubectl('-n', NS, 'delete', 'pod', 'res')
    expect(not any(b.endswith(f'pod{uid}') for b, _, _ in os.walk('/sys/fs/cgroup')), 'the cgroup stays behind')


def test_resize_in_place():
    make('grow', {'containers': [{'name': 'c', 'command': 'while :; do sleep 1; done', 'resources': {'requests': {'cpu': '100m'}, 'limits': {'cpu': '200m', 'memory': '32Mi'}}}]})
    before = phase('grow', 'Running')['containerStatuses'][0]
    replace_sub(f'/api/v1/namespaces/{NS}/pods/grow', 'resize',
                lambda o: o['spec']['containers'][0]['resources']['limits'].update(cpu='300m', memory='48Mi'))
    after = wait('the new limits in the status', lambda: (lambda c: c['resources']['limits'] == {'cpu': '300m', 'memory': '48Mi'} and c)(status('grow')['containerStatuses'][0]), 15)
    expect(after['containerID'] == before['containerID'] and after['restartCount'] == 0, str(after))
    out = kubectl('-n', NS, 'exec', 'grow', '--', 'sh', '-c', 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')
    expect(out.split()[0] == str(48 << 20), out)


def test_resize_below_usage():
    """What a container uses is not taken from it: such a resize waits."""
    make('shrink', {'containers': [{'name': 'c', 'command': 'head -c 24000000 /dev/zero > /dev/shm/x; touch /tmp/full; while :; do sleep 1; done',
                                    'resources': {'requests': {'memory': '4Mi'}, 'limits': {'memory': '48Mi'}}}]})
    phase('shrink', 'Running')
    wait('memory in use', lambda: kubectl('-n', NS, 'exec', 'shrink', '--', 'ls', '/tmp/full'), 20)
    replace_sub(f'/api/v1/namespaces/{NS}/pods/shrink', 'resize', lambda o: o['spec']['containers'][0]['resources']['limits'].update(memory='8Mi'))
    event('shrink', 'ResizeError', 'cannot decrease memory limits')
    c = status('shrink')['containerStatuses'][0]
    expect(c['restartCount'] == 0 and c['resources']['limits']['memory'] == '48Mi', str(c))
    kubectl('-n', NS, 'exec', 'shrink', '--', 'rm', '/dev/shm/x')
    wait('the new limit', lambda: status('shrink')['containerStatuses'][0]['resources']['limits']['memory'] == '8Mi', 30)


def test_active_deadline():
    make('deadline', {'activeDeadlineSeconds': 1, 'containers': [{'name': 'c', 'command': 'sleep 1000'}]})
    s = phase('deadline', 'Failed')
    expect(s['reason'] == 'DeadlineExceeded', str(s))


def test_readiness_gate():
    make('gate', {'readinessGates': [{'conditionType': 'x/y'}], 'containers': [{'name': 'c', 'command': 'sleep 1000'}]})
    s = phase('gate', 'Running')
    expect(condition(s, 'Ready')['reason'] == 'ReadinessGatesNotReady' and condition(s, 'ContainersReady')['status'] == 'True', str(s))
    replace_sub(f'/api/v1/namespaces/{NS}/pods/gate', 'status', lambda o: o['status']['conditions'].append({'type': 'x/y', 'status': 'True'}))
    wait('ready', lambda: condition(status('gate'), 'Ready')['status'] == 'True', 10)
    expect(condition(status('gate'), 'x/y')['status'] == 'True', 'a condition of others stays')


def test_container_restart_rules():
    make('rules', {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'restartPolicy': 'Never', 'restartPolicyRules': [{'action': 'Restart', 'exitCodes': {'operator': 'In', 'values': [42]}}],
                   'volumeMounts': [{'name': 'v', 'mountPath': '/v'}], 'command': 'test -e /v/x && exit 0; touch /v/x; exit 42'}], 'volumes': [{'name': 'v', 'emptyDir': {}}]})
    expect(phase('rules', 'Succeeded')['containerStatuses'][0]['restartCount'] == 1, 'restarted once')


def test_static_pod():
    path = f'{DATA}/manifests/web.yaml'
    with open(path, 'w') as f:
        f.write(f'apiVersion: v1\nkind: Pod\nmetadata: {{name: static, namespace: {NS}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: c, image: {IMAGE}, command: [sleep, "1000"]}}]\n')
    try:
        node = get('nodes')['items'][0]['metadata']['name']
        name = f'static-{node}'
        phase(name, 'Running')
        first = status(name)['containerStatuses'][0]['containerID']
        # Without waiting: it comes back sooner than kubectl looks.
        uid = get('-n', NS, 'pod', name)['metadata']['uid']
        kubectl('-n', NS, 'delete', 'pod', name, '--wait=false')
        wait('a new mirror', lambda: get('-n', NS, 'pod', name)['metadata']['uid'] != uid, 10)
        phase(name, 'Running')
        expect(status(name)['containerStatuses'][0]['containerID'] == first, 'a mirror that is deleted does not end the pod')
    finally:
        os.unlink(path)
    wait('its end', lambda: name not in kubectl('-n', NS, 'get', 'pods'), 45)


def test_server():
    node = get('nodes')['items'][0]['metadata']['name']
    make('stats', {'containers': [{'name': 'c', 'command': 'while :; do sleep 1; done'}]})
    phase('stats', 'Running')
    raw = f'/api/v1/nodes/{node}/proxy'
    s = json.loads(kubectl('get', '--raw', f'{raw}/stats/summary'))
    mine = wait('stats of the pod', lambda: [p for p in json.loads(kubectl('get', '--raw', f'{raw}/stats/summary'))['pods'] if p['podRef']['name'] == 'stats'], 10)
    expect(s['node']['memory']['workingSetBytes'] > 0 and mine[0]['containers'][0]['memory']['workingSetBytes'] > 0, str(mine))
    expect('container_memory_working_set_bytes' in kubectl('get', '--raw', f'{raw}/metrics/resource'), 'metrics/resource')
    expect('kubelet_' in kubectl('get', '--raw', f'{raw}/metrics'), 'metrics')
    expect(kubectl('get', '--raw', f'{raw}/healthz') == 'ok', 'healthz')
    expect('stats' in [p['metadata']['name'] for p in json.loads(kubectl('get', '--raw', f'{raw}/pods'))['items']], 'pods')
    running_pods = json.loads(kubectl('get', '--raw', f'{raw}/runningpods/'))['items']
    expect([p['spec']['containers'][0]['name'] for p in running_pods if p['metadata']['name'] == 'stats'] == ['c'], str(running_pods))
    expect('kubeletconfig' in kubectl('get', '--raw', f'{raw}/configz'), 'configz')


def test_log_options():
    make('lines', {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'command': 'for i in 1 2 3; do echo line $i; done; head -c 40000 /dev/zero | tr "\\0" x; echo; echo end'}]})
    phase('lines', 'Succeeded')
    expect(logs('lines', '--tail=1') == 'end\n', 'tail')
    expect(len(logs('lines', '--tail=2')) == 40001 + 4, 'a line in several entries is one line')
    expect(logs('lines', '--limit-bytes=9') == 'line 1\nli', logs('lines', '--limit-bytes=9'))
    expect(logs('lines', '--timestamps', '--tail=1').endswith('Z end\n'), logs('lines', '--timestamps', '--tail=1'))


def test_teardown():
    kubectl('delete', 'namespace', NS, '--timeout=120s', timeout=150)
    wait('log directories go', lambda: not sh('sh', '-c', f'ls -d /var/log/pods/{NS}_* 2>/dev/null || true'), 10)


if __name__ == '__main__':
    import sys
    run(sys.modules[__name__])
