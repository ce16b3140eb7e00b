"""Reads a release as docs/releases.md describes it, and nothing else.

    release.py FOLDER FILE_KEY    writes the image to standard output
"""

import hashlib
import hmac
import struct
import sys
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 262144


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Fields:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        assert len(self.data) >= count, "it ends too early"
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def sized(self):
        return self.take(self.number(2))


def text(value):
    return struct.pack(">H", len(value)) + value


def unseal(secret, salt, bound, sealed):
    def key(info):
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)

    plain = AESGCM(key(b"cipher")).decrypt(sealed[:12], sealed[12:], bound)
    assert hmac.digest(key(b"nonce"), bound + plain, "sha256")[:12] == sealed[:12], "nonce"
    return plain


def merkle(leaves):
    if len(leaves) == 1:
        return sha256(b"\0", leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1", merkle(leaves[:split]), merkle(leaves[split:]))


folder = Path(sys.argv[1])
file_key = bytes.fromhex(Path(sys.argv[2]).read_text())
fields = Fields((folder / "release.index").read_bytes())
assert fields.take(8) == b"GWRELIDX"
assert fields.number(4) == 1 and fields.number(4) == CHUNK
size, epoch = fields.number(8), fields.number(8)
root = fields.take(32)
sbom, sbom_length = fields.take(32), fields.number(4)
product, version = fields.sized(), fields.sized()
hardware = [fields.sized() for _ in range(fields.number(2))]
assert hardware == sorted(set(hardware))
count = fields.number(4)
assert count == -(-size // CHUNK)
chunks = [(fields.take(32), fields.take(32), fields.number(4)) for _ in range(count)]
if fields.number(1):
    fields.take(4 * 64)
keys = {}
for _ in range(fields.number(2)):
    kind, identity = fields.number(1), fields.take(32)
    keys[kind, identity] = [fields.sized() for _ in range(3)] if kind == 1 else fields.take(60)
assert not fields.data, "something follows"

salt = b"gateway file key 1"
wrapped = keys[2, sha256(salt, file_key)]
content_key = unseal(file_key, salt, struct.pack(">Q", epoch), wrapped)
release_id = sha256(
    b"gateway release 1", struct.pack(">QQ", size, epoch), text(product), text(version)
)
assert merkle([plain for plain, _, _ in chunks]) == root
if sbom_length:
    listed = (folder / "sbom" / sbom.hex()).read_bytes()
    assert len(listed) == sbom_length and sha256(listed) == sbom
for number, (plain, stored, length) in enumerate(chunks):
    expected = min(CHUNK, size - number * CHUNK)
    if length == 0:
        assert stored == bytes(32)
        opened = bytes(expected)
    else:
        sealed = (folder / "chunks" / stored.hex()).read_bytes()
        assert len(sealed) == length and sha256(sealed) == stored
        frame = unseal(content_key, release_id, struct.pack(">I", number), sealed)
        opened = zstandard.ZstdDecompressor().decompress(frame, max_output_size=expected)
    assert len(opened) == expected and sha256(opened) == plain
    sys.stdout.buffer.write(opened)
