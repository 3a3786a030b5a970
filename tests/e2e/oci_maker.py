"""Writes OCI image layouts and docker-archives for tests, whole or broken."""
import gzip
import hashlib
import io
import json
import os
import tarfile


def layer_tar(files, whiteouts=()):
    """A layer from {path in image: host file | bytes | ("link", target) | None for a folder}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in files.items():
            info = tarfile.TarInfo(name)
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(what, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, what[1]
                tar.addfile(info)
            elif isinstance(what, bytes):
                info.size, info.mode = len(what), 0o644
                tar.addfile(info, io.BytesIO(what))
            else:
                info.size, info.mode = os.path.getsize(what), 0o755
                with open(what, "rb") as f:
                    tar.addfile(info, f)
        for name in whiteouts:
            folder, base = os.path.split(name)
            tar.addfile(tarfile.TarInfo(os.path.join(folder, ".wh." + base)))
    return out.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def image_config(layers, config):
    return json.dumps({"architecture": "amd64", "os": "linux", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(la) for la in layers]}}).encode()


def docker_archive(path, files, config, more_layers=()):
    layers = [layer_tar(files), *more_layers]
    conf = image_config(layers, config)
    names = [f"{sha256(la)}/layer.tar" for la in layers]
    with tarfile.open(path, "w") as tar:
        for name, data in [(sha256(conf) + ".json", conf), *zip(names, layers),
                           ("manifest.json", json.dumps([{"Config": sha256(conf) + ".json", "RepoTags": ["t:1"],
                                                          "Layers": names}]).encode())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def oci_layout(path, files, config, more_layers=(), compress=True):
    """An image layout folder; returns @path."""
    return oci_layout_of(path, [layer_tar(files), *more_layers], config, compress)


def oci_layout_of(path, layers, config, compress=True):
    """The same of the tars @layers."""
    blobs = os.path.join(path, "blobs", "sha256")
    os.makedirs(blobs)

    def blob(data, media_type):
        with open(os.path.join(blobs, sha256(data)), "wb") as f:
            f.write(data)
        return {"mediaType": media_type, "digest": "sha256:" + sha256(data), "size": len(data)}

    conf = blob(image_config(layers, config), "application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
    packed = [blob(gzip.compress(la, 1) if compress else la, kind) for la in layers]
    manifest = blob(json.dumps({"schemaVersion": 2, "config": conf, "layers": packed}).encode(),
                    "application/vnd.oci.image.manifest.v1+json")
    with open(os.path.join(path, "index.json"), "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
    with open(os.path.join(path, "oci-layout"), "w") as f:
        f.write('{"imageLayoutVersion": "1.0.0"}')
    return path


def pack(folder, path):
    """The layout @folder as a tar."""
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(folder)):
            tar.add(os.path.join(folder, name), name)
    return path
