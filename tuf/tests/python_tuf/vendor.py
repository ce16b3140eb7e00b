"""A repository made by python-tuf, in two editions.

    vendor.py FOLDER 1|2    writes FOLDER/metadata and FOLDER/targets

Edition 1: root 2 of 3 in both schemes, a target with two hashes, a delegation by patterns and one by hash prefixes.
Edition 2: a root key and the timestamp key are replaced, and a target changes. Keys stay in FOLDER/keys as PKCS#8.
"""

import hashlib
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)


class Vendor:
    def __init__(self, folder, edition):
        self.folder = folder
        self.edition = edition
        for name in ("keys", "metadata", "targets"):
            (folder / name).mkdir(exist_ok=True)

    def key(self, name, make=CryptoSigner.generate_ed25519):
        path = self.folder / "keys" / f"{name}.pem"
        if not path.exists():
            path.write_bytes(make().private_bytes)
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))

    def target(self, path, data, hashes):
        described = TargetFile.from_data(path, data, hashes)
        for name in described.get_prefixed_paths():
            file = self.folder / "targets" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return described

    def publish(self, role, signed, signers, name=None):
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        name = name or f"{signed.version}.{role}.json"
        (self.folder / "metadata" / name).write_bytes(data)
        hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        return MetaFile(signed.version, len(data), hashes)

    def root(self):
        signers = [
            self.key("root-1", CryptoSigner.generate_ecdsa),
            self.key("root-2"),
            self.key("root-3", CryptoSigner.generate_ecdsa),
        ]
        root = Root(self.edition, expires=EXPIRES, consistent_snapshot=True)
        old = []
        if self.edition == 2:
            # The first key was lost; two of the old three agree to its successor.
            old = signers[1:]
            signers = [self.key("root-4"), *old]
        for signer in signers:
            root.add_key(signer.public_key, "root")
        root.roles["root"].threshold = 2
        for role in ("timestamp", "snapshot", "targets"):
            root.add_key(self.role_key(role).public_key, role)
        self.publish("root", root, signers)

    def role_key(self, role):
        if role == "timestamp":
            return self.key(f"timestamp-{self.edition}", CryptoSigner.generate_ecdsa)
        return self.key(role)

    def delegated(self, role, target, paths=None, prefixes=None):
        signer = self.key(role, CryptoSigner.generate_ecdsa)
        targets = Targets(self.edition, expires=EXPIRES, targets={target.path: target})
        meta = self.publish(role, targets, [signer])
        key_id = signer.public_key.keyid
        delegation = DelegatedRole(role, [key_id], 1, True, paths, prefixes)
        return meta, delegation, signer.public_key

    def all(self):
        self.root()
        own = self.target("top.bin", b"top %d" % self.edition, ["sha256", "sha512"])
        teamwork = self.target("team/x/app.bin", b"team", ["sha256"])
        binned = self.target("binned.bin", b"binned", ["sha512"])
        prefix = hashlib.sha256(binned.path.encode()).hexdigest()[:2]
        roles = {
            "team": self.delegated("team", teamwork, paths=["team/*/*.bin"]),
            "bin é": self.delegated("bin é", binned, prefixes=["zz", prefix]),
        }
        delegations = Delegations(
            {key.keyid: key for _, _, key in roles.values()},
            {name: delegation for name, (_, delegation, _) in roles.items()},
        )
        targets = Targets(
            self.edition,
            expires=EXPIRES,
            targets={own.path: own},
            delegations=delegations,
            unrecognized_fields={"x-note": 'signed too: "é" \\ \n'},
        )
        meta = {f"{name}.json": meta for name, (meta, _, _) in roles.items()}
        meta["targets.json"] = self.publish("targets", targets, [self.role_key("targets")])
        snapshot = Snapshot(self.edition, expires=EXPIRES, meta=meta)
        snapshot_meta = self.publish("snapshot", snapshot, [self.role_key("snapshot")])
        timestamp = Timestamp(self.edition, expires=EXPIRES, snapshot_meta=snapshot_meta)
        self.publish("timestamp", timestamp, [self.role_key("timestamp")], "timestamp.json")


if __name__ == "__main__":
    Vendor(Path(sys.argv[1]), int(sys.argv[2])).all()
