#!/usr/bin/env python3
"""What cannot work is refused with a reason and a way out, and leaves nothing behind. No cluster needs to run."""
import os
import socket
import sys
import tempfile

from cluster import DATA, ROOT, SKIFF, expect, run, sh

PORT = 16443


def refused(*argv, text, code=1, env=None):
    """The command ends with `code` and says each of `text`."""
    got, out = sh(*argv, check=False, timeout=60, env=env)
    expect(got == code, f'{" ".join(argv)}: exit code {got}, not {code}: {out}')
    for t in text:
        expect(t in out, f'{" ".join(argv)} does not say "{t}": {out}')


def processes(dir):
    """Processes that know of `dir`."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            line = open(f'/proc/{pid}/cmdline', encoding='utf-8', errors='replace').read()
        except OSError:
            continue
        if dir in line and int(pid) != os.getpid():
            found.append(line.replace('\0', ' '))
    return found


def test_usage():
    """Wrong usage: exit code 2 and the usage; --help: 0."""
    for argv in (['nothing-of-that-name'], ['up', '--no-such-flag'], ['up', '--nodes', '0'], ['up', '--nodes', 'many'], ['up', 'more'],
                 ['image'], ['image', 'import'], ['snapshot', 'save'], ['token'], ['agent', '--nodes', '2'], []):
        got, out = sh(SKIFF, *argv, check=False)
        expect(got == 2 and out.strip(), f'{argv}: exit code {got}: {out}')
    commands = ['up', 'down', 'status', 'kubeconfig', 'image', 'snapshot', 'server', 'agent', 'token', 'kube-apiserver', 'kube-controller-manager',
                'kube-scheduler', 'cloud-controller-manager', 'kubelet', 'container-runtime', 'kube-proxy', 'cluster-dns']
    for name in commands:
        got, out = sh(SKIFF, name, '--help', check=False)
        expect(got == 0 and 'usage' in out.lower(), f'{name} --help: exit code {got}: {out}')
    expect('v1.36' in sh(SKIFF, '--version'), 'version')
    for shell in ('bash', 'zsh'):
        sh('bash', '-nc', sh(SKIFF, 'completion', shell))


def test_no_root():
    """Without root: said at once."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        exe = f'{d}/skiff'
        sh('cp', SKIFF, exe)  # the build directory may not be everybody's to read
        for command in (['up'], ['down'], ['server']):
            refused('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', exe, *command, '--data-dir', f'{d}/data', text=['root', 'sudo'])


def test_data_directories():
    """A directory that components cannot enter, a file in its place, damaged settings, a store of a newer Skiff."""
    with tempfile.TemporaryDirectory() as d:  # 0700
        refused(SKIFF, 'up', '--data-dir', f'{d}/data', '--https-listen-port', str(PORT), text=[d, 'chmod o+x'])
        os.chmod(d, 0o755)
        open(f'{d}/file', 'w', encoding='utf-8').close()
        refused(SKIFF, 'up', '--data-dir', f'{d}/file', text=[f'{d}/file'])
        os.mkdir(f'{d}/bad')
        with open(f'{d}/bad/cluster.json', 'w', encoding='utf-8') as f:
            f.write('{"nodes": ')
        refused(SKIFF, 'up', '--data-dir', f'{d}/bad', text=['cluster.json'])
        refused(SKIFF, 'status', '--data-dir', f'{d}/none', text=['skiff up'], code=3)
        refused(SKIFF, 'snapshot', 'status', f'{d}/file', text=[f'{d}/file'])
        expect(not processes(d), f'left running: {processes(d)}')


def test_port_taken():
    """A port that somebody has: which, and how to find out who."""
    with tempfile.TemporaryDirectory() as d, socket.socket() as s:
        os.chmod(d, 0o755)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('0.0.0.0', PORT))
        s.listen()
        refused(SKIFF, 'up', '--data-dir', f'{d}/data', '--https-listen-port', str(PORT), text=[f'port {PORT} is taken', 'ss -ltnp'])
        expect(not processes(d), f'left running: {processes(d)}')


def test_address_of_several_nodes():
    """With extra nodes the first one's address is that of their common link: another would cut them off."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        refused(SKIFF, 'up', '--data-dir', f'{d}/data', '--https-listen-port', str(PORT), '--nodes', '2', '--node-ip', '192.0.2.1',
                text=['--node-ip=192.0.2.1', '--nodes=2', '100.127.200.1'])
        expect(not processes(d), f'left running: {processes(d)}')


def test_missing_programs():
    """Without crun and nft in the PATH: their packages are named."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        refused(SKIFF, 'up', '--data-dir', f'{d}/data', '--https-listen-port', str(PORT), env={'PATH': d},
                text=['crun', 'nftables', 'apt-get install'])


def test_images():
    """Archives that are none, that end early, that want out of their directory."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        refused(SKIFF, 'image', 'import', '--data-dir', d, f'{d}/none.tar', text=['none.tar'])
        with open(f'{d}/text.tar', 'w', encoding='utf-8') as f:
            f.write('no archive\n' * 1000)
        refused(SKIFF, 'image', 'import', '--data-dir', d, f'{d}/text.tar', text=['text.tar'])
        sh('python3', f'{ROOT}/tools/mkimage.py', f'{d}/good.tar', 'docker.io/library/good:1')
        with open(f'{d}/good.tar', 'r+b') as f:
            f.truncate(os.path.getsize(f'{d}/good.tar') // 2)
        refused(SKIFF, 'image', 'import', '--data-dir', d, f'{d}/good.tar', text=['good.tar'])
        expect('good' not in sh(SKIFF, 'image', 'ls', '--data-dir', d), 'half an image is there')
        refused(SKIFF, 'image', 'rm', '--data-dir', d, 'nothing:1', text=['nothing:1', 'image ls'])


def test_other_cluster_untouched():
    """`down` of a data directory that has no cluster leaves the one that runs alone."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)

        def what_is_there():
            return (sh(SKIFF, 'status', '--data-dir', DATA, check=False)[0], sh('nft', 'list', 'tables'), sorted(os.listdir('/sys/class/net')),
                    sorted(n for n in os.listdir('/run/netns')) if os.path.isdir('/run/netns') else [])

        before = what_is_there()
        sh(SKIFF, 'down', '--data-dir', f'{d}/data')
        expect(what_is_there() == before, f'there was {before}, now {what_is_there()}')


if __name__ == '__main__':
    run(sys.modules[__name__])
