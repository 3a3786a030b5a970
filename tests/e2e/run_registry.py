#!/usr/bin/env python3
"""Images against the registry and tools that Debian packages.  run_registry.py ROUX [TEST...]"""
import json
import os
import shutil
import signal
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import WORK, ROUX, Skip, busybox_root, complains, environ, expect, folder, main, roux, verb, wait_until
from oci_maker import layer_tar, oci_layout, sha256
from registries import Registry, certificate

BUSYBOX = busybox_root() + "/bin/busybox"
FILES = {"bin": None, "bin/busybox": BUSYBOX, "bin/sh": ("link", "busybox"), "etc": None, "etc/name": b"first\n"}
CONFIG = {"Cmd": ["/bin/sh", "-c", "busybox cat /etc/name"], "Env": ["PATH=/bin"]}
SECOND = layer_tar({"etc/name": b"second\n"})


def skopeo(*args, **env):
    if not shutil.which("skopeo"):
        raise Skip("no skopeo (Debian package)")
    r = subprocess.run(["skopeo", "--insecure-policy", *args], capture_output=True, env=environ(**env))
    assert r.returncode == 0, r
    return r.stdout


def raw(host, name, **env):
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}", **env)


def store(name):
    return {"ROUX_STORE": os.path.join(WORK, name)}


def facts(name, env):
    return {i["name"]: i for i in json.loads(expect(verb("images", "--json", env=env)).out)}


def layout(name, **kw):
    return oci_layout(folder(name), FILES, CONFIG, [SECOND], **kw)


def check_whole(env):
    expect(verb("store", "verify", env=env), 0)


def test_pull_gives_the_same_bytes_that_skopeo_pushed():
    env = store("s-pull")
    with Registry() as reg:
        for n, (source, options) in enumerate([("gzip", ()), ("plain", ()), ("zstd", ("--dest-compress-format", "zstd")),
                                               ("docker", ("--format", "v2s2"))]):
            skopeo("copy", "--dest-tls-verify=false", *options, f"oci:{layout('l-' + source, compress=source != 'plain')}",
                   f"docker://{reg.host}/team/x:{n}")
            r = expect(verb("pull", f"{reg.host}/team/x:{n}", env=env))
            manifest = raw(reg.host, f"team/x:{n}")
            assert b"Digest: sha256:" + sha256(manifest).encode() in r.out, (r, manifest)
            expect(roux("--pull", "never", f"{reg.host}/team/x:{n}", env=env), 0, out=b"second\n")
    check_whole(env)


def test_push_round_trip_is_byte_identical():
    env, other = store("s-push"), store("s-push-2")
    with Registry() as one, Registry() as two:
        for n, options in enumerate([(), ("--format", "v2s2")]):
            skopeo("copy", "--dest-tls-verify=false", *options, f"oci:{layout(f'l-push{n}')}", f"docker://{one.host}/a:{n}")
            expect(verb("pull", f"{one.host}/a:{n}", env=env))
            expect(verb("tag", f"{one.host}/a:{n}", f"{two.host}/b/c:{n}", env=env))
            expect(verb("push", f"{two.host}/b/c:{n}", env=env))
            assert raw(one.host, f"a:{n}") == raw(two.host, f"b/c:{n}")
            expect(verb("pull", f"{two.host}/b/c:{n}", env=other))
            expect(roux(f"{two.host}/b/c:{n}", env=other), 0, out=b"second\n")
            # Nothing is sent twice; another repository of the same registry lends its layers.
            again = expect(verb("push", f"{two.host}/b/c:{n}", env=env))
            assert again.err.count(b"Already exists") == 3, again
            expect(verb("tag", f"{two.host}/b/c:{n}", f"{two.host}/d:{n}", env=env))
            lent = expect(verb("push", f"{two.host}/d:{n}", env=env))
            assert b"Push complete" not in lent.err, lent
            copy = os.path.join(WORK, f"pushed{n}")
            skopeo("copy", "--src-tls-verify=false", f"docker://{two.host}/d:{n}", f"dir:{copy}")
            with open(copy + "/manifest.json", "rb") as f:
                assert f.read() == raw(one.host, f"a:{n}")


def test_index_platform_and_digest():
    env = store("s-index")
    place = layout("multi")
    with open(place + "/index.json") as f:
        amd = json.load(f)["manifests"][0]
    arm_config = b'{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'

    def blob(data):
        with open(f"{place}/blobs/sha256/{sha256(data)}", "wb") as f:
            f.write(data)
        return {"digest": "sha256:" + sha256(data), "size": len(data)}

    arm = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **blob(json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
         "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(arm_config)}}).encode())}
    with open(place + "/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [{**amd, "platform": {"os": "linux", "architecture": "amd64"}},
                                                     {**arm, "platform": {"os": "linux", "architecture": "arm64"}}]}, f)
    nested = {"mediaType": "application/vnd.oci.image.index.v1+json", **blob(open(place + "/index.json", "rb").read())}
    with open(place + "/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [nested]}, f)
    with Registry() as reg, Registry() as two:
        skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{place}", f"docker://{reg.host}/multi:1")
        expect(verb("pull", f"{reg.host}/multi:1", env=env))
        expect(roux(f"{reg.host}/multi:1", env=env), 0, out=b"second\n")
        digest = sha256(raw(reg.host, "multi:1"))
        pinned = f"{reg.host}/multi@sha256:{digest}"
        assert facts("", env)[f"{reg.host}/multi:1"]["digest"] == "sha256:" + digest
        expect(roux(pinned, env=env), 0, out=b"second\n")
        complains(verb("pull", f"{reg.host}/multi@sha256:" + "0" * 64, env=env), 1, "not found")
        complains(verb("pull", "--platform", "linux/riscv64", f"{reg.host}/multi:1", env=env), 1, "linux/riscv64")
        # A part of the index cannot be pushed as the index; all of it can.
        expect(verb("pull", "--all-platforms", f"{reg.host}/multi:1", env=env))
        expect(verb("tag", f"{reg.host}/multi:1", f"{two.host}/multi:1", env=env))
        expect(verb("push", f"{two.host}/multi:1", env=env))
        assert raw(two.host, "multi:1") == raw(reg.host, "multi:1")
        # One for another processor only.
        arm_ref = f"{reg.host}/multi@{arm['digest']}"
        complains(verb("pull", arm_ref, env=env), 1, "linux/arm64", "--platform")
        expect(verb("pull", "--platform", "linux/arm64", arm_ref, env=env))
        complains(roux(arm_ref, env=env), 125, "linux/arm64")
    check_whole(env)


def test_run_pulls_by_itself():
    env = store("s-run")
    with Registry() as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-run')}", f"docker://{reg.host}/x:1")
        name = f"{reg.host}/x:1"
        complains(roux("--pull", "never", name, env=env), 125, "no image", "roux pull")
        r = expect(roux(name, env=env), 0, out=b"second\n", err=b"Unable to find image")
        assert b"\x1b" not in r.err, "no progress bars off a terminal"
        again = expect(roux(name, env=env), 0, out=b"second\n")
        assert again.err == b"", again
        skopeo("copy", "--dest-tls-verify=false", f"oci:{oci_layout(folder('l-run2'), FILES, CONFIG)}", f"docker://{name}")
        expect(roux(name, env=env), 0, out=b"second\n")
        expect(roux("--pull", "always", name, env=env), 0, out=b"first\n")
    expect(roux(name, env=env), 0, out=b"first\n")	# the registry is gone
    complains(roux("--pull", "always", name, env=env), 125, "cannot reach registry")


def test_login_keeps_the_password_and_wrong_ones_are_refused():
    env = {**store("s-login"), "DOCKER_CONFIG": folder("docker-config")}
    config = env["DOCKER_CONFIG"] + "/config.json"
    with open(config, "w") as f:
        f.write('{"detachKeys": "ctrl-a"}')
    with Registry(users={"ann": "secret"}) as reg:
        skopeo("copy", "--dest-tls-verify=false", "--dest-creds", "ann:secret", f"oci:{layout('l-auth')}", f"docker://{reg.host}/x:1")
        complains(verb("pull", f"{reg.host}/x:1", env=env), 1, "roux login")
        complains(verb("login", "-u", "ann", "--password-stdin", reg.host, stdin=b"wrong\n", env=env), 1, "refuses user ann")
        expect(verb("login", "-u", "ann", "--password-stdin", reg.host, stdin=b"secret\n", env=env), 0, out=b"Login Succeeded\n")
        assert stat.S_IMODE(os.stat(config).st_mode) == 0o600
        with open(config) as f:
            assert json.load(f)["detachKeys"] == "ctrl-a"
        expect(verb("pull", f"{reg.host}/x:1", env=env))
        expect(verb("push", f"{reg.host}/x:1", env=env))
        # skopeo understands the file too.
        raw(reg.host, "x:1", REGISTRY_AUTH_FILE=config)
        expect(verb("logout", reg.host, env=env))
        complains(verb("pull", f"{reg.host}/x:1", env=env), 1, "roux login")
        # A helper program keeps secrets elsewhere.
        helpers = folder("helpers")
        with open(helpers + "/docker-credential-test", "w") as f:
            f.write('#!/bin/sh\nread host\n[ "$1" = get ] && echo "{\\"ServerURL\\":\\"$host\\",\\"Username\\":\\"ann\\",\\"Secret\\":\\"secret\\"}"\n')
        os.chmod(helpers + "/docker-credential-test", 0o755)
        with open(config, "w") as f:
            json.dump({"credHelpers": {reg.host: "test"}}, f)
        expect(verb("pull", f"{reg.host}/x:1", env={**env, "PATH": helpers + ":" + os.environ["PATH"]}))


def test_tls_needs_a_certificate_that_somebody_vouches_for():
    env, (cert, key) = store("s-tls"), certificate()
    with Registry(tls=(cert, key)) as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-tls')}", f"docker://{reg.host}/x:1")
        complains(verb("pull", f"{reg.host}/x:1", env=env), 1, "certificate", "SSL_CERT_FILE")
        expect(verb("pull", f"{reg.host}/x:1", env={**env, "SSL_CERT_FILE": cert}))
        expect(verb("push", f"{reg.host}/x:1", env={**env, "SSL_CERT_FILE": cert}))
        expect(verb("pull", "--insecure", f"{reg.host}/x:1", env=env))


def test_save_and_load_in_every_form():
    env = store("s-save")
    with Registry() as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-save')}", f"docker://{reg.host}/x:1")
        name = f"{reg.host}/x:1"
        expect(verb("pull", name, env=env))
        digest = facts("", env)[name]["digest"]
    tar = os.path.join(WORK, "saved.tar")
    expect(verb("save", "-o", tar, name, env=env))
    expect(roux(tar), 0, out=b"second\n")
    assert json.loads(skopeo("inspect", f"oci-archive:{tar}"))["Digest"] == digest
    other = store("s-load")
    expect(verb("load", "-i", tar, env=other), 0, out=f"Loaded image: {name}\n".encode())
    assert facts("", other)[name]["digest"] == digest
    expect(roux(name, env=other), 0, out=b"second\n")
    docker = os.path.join(WORK, "docker-form.tar")
    skopeo("copy", f"docker-archive:{tar}", f"docker-archive:{docker}:some/thing:2")
    with open(docker, "rb") as f:
        expect(verb("load", stdin=f.read(), env=other), 0, out=b"Loaded image: docker.io/some/thing:2\n")
    expect(roux("some/thing:2", env=other), 0, out=b"second\n")
    if shutil.which("umoci"):
        place = os.path.join(WORK, "umoci")
        skopeo("copy", f"oci-archive:{tar}", f"oci:{place}:v1")
        subprocess.run(["umoci", "config", "--image", place + ":v1", "--config.cmd", "/bin/busybox", "--config.cmd", "pwd"],
                       check=True, env=environ())
        complains(verb("load", "-i", place, env=other), 1, "NAME")
        expect(verb("load", "-i", place, "from-umoci:1", env=other))
        expect(roux("from-umoci:1", env=other), 0, out=b"/\n")
        expect(verb("save", "-o", tar + "2", "from-umoci:1", env=other))
        back = os.path.join(WORK, "umoci-back")
        skopeo("copy", f"oci-archive:{tar}2", f"oci:{back}:v1")
        subprocess.run(["umoci", "unpack", "--image", back + ":v1", os.path.join(WORK, "bundle")], check=True, env=environ(),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(os.path.join(WORK, "bundle/rootfs/etc/name")) as f:
            assert f.read() == "second\n"
    with open(tar, "r+b") as f:	# a byte of the layer that is not the same any more
        f.seek(300000)
        byte = f.read(1)
        f.seek(300000)
        f.write(bytes([byte[0] ^ 1]))
    broken = store("s-broken")
    complains(verb("load", "-i", tar, env=broken), 1, "damaged")
    assert not facts("", broken)
    check_whole(other)


def test_names_identifiers_and_removal():
    env = store("s-names")
    tar = os.path.join(WORK, "rootfs.tar")
    subprocess.run(["tar", "cf", tar, "-C", busybox_root(), "."], check=True)
    expect(verb("import", "-c", 'CMD ["/bin/busybox", "id", "-un"]', "-c", "ENV A=b", tar, "box:1", env=env))
    expect(verb("import", busybox_root(), "box:2", env=env))
    expect(roux("box:1", env=env), 0, out=b"root\n")
    one = facts("", env)["docker.io/library/box:1"]
    expect(roux(one["id"][7:19], env=env), 0, out=b"root\n")
    expect(verb("tag", "box:1", "other.example:5000/x", env=env))
    info = json.loads(expect(verb("inspect", "box:1", env=env)).out)[0]
    assert info["Id"] == one["id"] and sorted(info["RepoTags"]) == ["box:1", "other.example:5000/x:latest"], info
    assert info["Config"]["Env"] == ["A=b"]
    used = json.loads(verb("store", "df", "--json", env=env).out)
    assert used["reclaimable_bytes"] == 0 and used["objects"] == 6, used
    expect(verb("rmi", "box:1", env=env), 0, out=b"Untagged: docker.io/library/box:1\n")
    r = expect(verb("rmi", one["id"], env=env))
    assert r.out.count(b"Deleted: ") == 3, r
    complains(verb("rmi", "box:1", env=env), 1, "no image 'box:1'")
    complains(verb("inspect", "nothing", env=env), 1, "no image 'nothing'")
    complains(verb("tag", "box:2", "Wrong", env=env), 1, "lower-case")
    complains(verb("pull", "x:y:z", env=env), 1, "not a name")
    complains(verb("import", __file__, "text", env=env), 1, "not a tar")
    complains(verb("images", "--nonsense", env=env), 125)
    check_whole(env)


def test_an_ordinary_user_has_a_store_of_their_own():
    if os.geteuid() != 0:
        raise Skip("this is what all the others test")
    place = folder("nobody")
    for d in (place, os.path.join(WORK)):
        os.chmod(d, 0o755)
    binary = os.path.join(place, "roux")
    shutil.copy(ROUX, binary)
    cache = os.path.join(place, "cache")
    shutil.copytree(os.path.join(environ()["ROUX_CACHE"], "kernels"), cache + "/kernels", symlinks=True)
    subprocess.run(["chown", "-R", "65534:65534", place], check=True)
    env = environ(HOME=place, XDG_DATA_HOME=place + "/data", ROUX_CACHE=cache)
    for name in ("ROUX_STORE", "ROUX_STATE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        env.pop(name, None)

    def as_nobody(*args):
        p = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, *args], env=env,
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=180)
        assert p.returncode == 0, p
        return p.stdout

    with Registry() as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-user')}", f"docker://{reg.host}/x:1")
        as_nobody("pull", f"{reg.host}/x:1")
        assert as_nobody("run", f"{reg.host}/x:1") == b"second\n"
        as_nobody("push", f"{reg.host}/x:1")
    assert as_nobody("store", "path").decode().strip() == place + "/data/roux"
    assert os.stat(place + "/data/roux/blobs").st_uid == 65534


def test_a_full_disk_and_a_quota_leave_the_store_whole():
    env = store("s-full")
    big = {**FILES, "etc/big": os.urandom(6 << 20)}
    with Registry() as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-small')}", f"docker://{reg.host}/small:1")
        skopeo("copy", "--dest-tls-verify=false", f"oci:{oci_layout(folder('l-big'), big, CONFIG)}", f"docker://{reg.host}/big:1")
        mounted = env["ROUX_STORE"]
        os.makedirs(mounted)
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", mounted], check=True)
        try:
            expect(verb("pull", f"{reg.host}/small:1", env=env))
            before = facts("", env)
            if os.geteuid() == 0:
                complains(verb("pull", f"{reg.host}/big:1", env=env), 1, "No space left", "roux store gc")
                assert facts("", env) == before
                expect(verb("store", "gc", "--all", env=env))
                check_whole(env)
                expect(roux(f"{reg.host}/small:1", env=env), 0, out=b"second\n")
        finally:
            if os.geteuid() == 0:
                # The VM's monitor ends a moment after its command.
                wait_until("an unused store", lambda: subprocess.run(["umount", mounted]).returncode == 0)
        env = store("s-quota")
        expect(verb("pull", f"{reg.host}/small:1", env=env))
        expect(verb("store", "quota", "4M", env=env))
        complains(verb("pull", f"{reg.host}/big:1", env=env), 1, "quota", "roux store gc")
        complains(verb("import", os.path.join(WORK, "l-big", "blobs"), "big", env=env), 1, "quota")
        assert list(facts("", env)) == [f"{reg.host}/small:1"]
        expect(verb("store", "quota", "none", env=env))
        expect(verb("pull", f"{reg.host}/big:1", env=env))
        check_whole(env)


def test_what_a_machine_uses_is_not_collected():
    env = store("s-used")
    with Registry() as reg:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout('l-used')}", f"docker://{reg.host}/x:1")
        expect(verb("pull", f"{reg.host}/x:1", env=env))
        p = subprocess.Popen([ROUX, "run", f"{reg.host}/x:1", "--", "/bin/sh", "-c", "echo up; busybox sleep 60"], stdout=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, env=environ(**env))
        assert p.stdout.readline() == b"up\n"
        r = expect(verb("rmi", f"{reg.host}/x:1", env=env))
        assert b"Deleted" not in r.out, r
        assert json.loads(verb("store", "df", "--json", env=env).out)["reclaimable_bytes"] == 0
        monitor = json.loads(expect(verb("ps", "--json", env=env)).out)[0]["State"]["MonitorPid"]
        os.kill(monitor, signal.SIGKILL)	# a lease ends with its process, however that ends
        p.communicate()
        r = expect(verb("store", "gc", env=env))
        assert json.loads(verb("store", "df", "--json", env=env).out)["objects"] == 0, r


main(globals())
