#!/usr/bin/env python3
"""Makes an OCI image layout (a tar) of Debian's static busybox: no registry, no Docker, standard library only.

usage: mkimage.py OUT.tar [NAME] [BUSYBOX]
NAME defaults to docker.io/library/busybox:latest, BUSYBOX to /bin/busybox (Debian package busybox-static).
The result is the same for the same busybox: times and owners are fixed.
"""
import gzip
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile


def add(tar, name, data=b'', mode=0o644, kind=tarfile.REGTYPE, link=''):
    t = tarfile.TarInfo(name)
    t.size, t.mode, t.type, t.linkname = len(data), mode, kind, link
    t.uname = t.gname = 'root'
    tar.addfile(t, io.BytesIO(data))


def layer(busybox):
    applets = subprocess.run([busybox, '--list'], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT) as tar:
        for d in ('bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'usr', 'usr/bin', 'usr/sbin', 'var', 'var/www'):
            add(tar, d, mode=0o700 if d == 'root' else 0o755, kind=tarfile.DIRTYPE)
        add(tar, 'sbin', kind=tarfile.SYMTYPE, link='bin', mode=0o777)
        add(tar, 'tmp', mode=0o1777, kind=tarfile.DIRTYPE)
        add(tar, 'bin/busybox', open(busybox, 'rb').read(), 0o755)
        for a in sorted(set(applets) - {'busybox'}):
            add(tar, 'bin/' + a, kind=tarfile.LNKTYPE, link='bin/busybox', mode=0o755)
        add(tar, 'etc/passwd', b'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n'
                               b'nobody:x:65534:65534:nobody:/home:/bin/false\n')
        add(tar, 'etc/group', b'root:x:0:\nwww-data:x:33:\ndemo:x:2000:www-data\nnogroup:x:65534:\n')
        add(tar, 'etc/nsswitch.conf', b'hosts: files dns\n')
    return out.getvalue()


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    out = sys.argv[1]
    name = sys.argv[2] if len(sys.argv) > 2 else 'docker.io/library/busybox:latest'
    busybox = sys.argv[3] if len(sys.argv) > 3 else '/bin/busybox'
    arch = {'x86_64': 'amd64', 'aarch64': 'arm64', 'armv7l': 'arm'}.get(platform.machine(), platform.machine())
    blobs = {}

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {'digest': 'sha256:' + digest, 'size': len(data)}

    plain = layer(busybox)
    packed = blob(gzip.compress(plain, 6, mtime=0))
    config = blob(json.dumps({
        'created': '1970-01-01T00:00:00Z', 'architecture': arch, 'os': 'linux',
        'config': {'Env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], 'Cmd': ['sh']},
        'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + hashlib.sha256(plain).hexdigest()]},
    }).encode())
    manifest = blob(json.dumps({
        'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
        'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', **config},
        'layers': [{'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip', **packed}],
    }).encode())
    index = json.dumps({'schemaVersion': 2, 'manifests': [{
        'mediaType': 'application/vnd.oci.image.manifest.v1+json', **manifest,
        'platform': {'architecture': arch, 'os': 'linux'},
        'annotations': {'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.rsplit(':', 1)[-1]},
    }]}).encode()
    with tarfile.open(out, 'w', format=tarfile.PAX_FORMAT) as tar:
        add(tar, 'oci-layout', b'{"imageLayoutVersion":"1.0.0"}')
        add(tar, 'index.json', index)
        add(tar, 'blobs', kind=tarfile.DIRTYPE, mode=0o755)
        add(tar, 'blobs/sha256', kind=tarfile.DIRTYPE, mode=0o755)
        for digest, data in sorted(blobs.items()):
            add(tar, 'blobs/sha256/' + digest, data)


main()
