"""Archives, and files of base models, that are made to harm who reads them."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

from tests.attack.requests import CANARY

Files = dict[str, bytes]
SPARSE_BYTES = 5_000_000_000
BOMB_BYTES = 2_000_000_000
DEEP = 100_000


class _Shell:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open('/tmp/{CANARY}', 'w')",)


# ---- archives -------------------------------------------------------------------------------------------------------


def archives(files: Files) -> Iterator[tuple[str, Files]]:
    """Archives by what is wrong with them."""
    paths = (
        f"../../../../tmp/{CANARY}",
        f"/tmp/{CANARY}",
        "../config.json",
        "..\\..\\config.json",
        "a/../../config.json",
    )
    for path in (*paths, "x\0.json", "a" * 60_000, "\u202e.json"):
        yield f"zip {path[:20]!r}", {"archive.zip": zip_of({path: b"{}", **files})}
    for path in paths:
        yield f"tar {path[:20]!r}", {"archive.tar": tar_of({path: b"{}", **files})}
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
        yield f"tar member {kind!r}", {"archive.tar": tar_of(files, link(kind))}


def bombs(files: Files) -> Iterator[tuple[str, Files]]:
    """Archives that are far larger than they look."""
    yield "zip bomb", {"archive.zip": zip_of_zeros(BOMB_BYTES)}
    yield "sparse tar", {"archive.tar": sparse_tar()}
    yield "20,000 members", {"archive.zip": zip_of({f"{n}.json": b"" for n in range(20_000)})}
    yield "zip in zip", {"archive.zip": zip_of({"archive.zip": zip_of(files)})}
    yield "the same name twice", {"archive.zip": zip_of(files) + zip_of(files)}
    whole = zip_of(files)
    yield "cut off", {"archive.zip": whole[: len(whole) // 2]}
    yield "wrong sums", {"archive.zip": whole[:200] + b"\xff" * 200 + whole[400:]}
    yield "random bytes", {"archive.tar": bytes(range(256)) * 2000}


def zip_of(files: Files) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_of_zeros(num_bytes: int) -> bytes:
    """A zip archive whose weights are zeros."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("model.safetensors", "w") as member,
    ):
        for _ in range(num_bytes // 10_000_000):
            member.write(bytes(10_000_000))
    return buffer.getvalue()


def tar_of(files: Files, *more: tarfile.TarInfo) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info in more:
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(kind: bytes) -> tarfile.TarInfo:
    """A member that is a link to a file of the system, or a device."""
    info = tarfile.TarInfo("config.json")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def sparse_tar() -> bytes:
    """A tar archive of one block whose member claims to be a hole of SPARSE_BYTES."""
    info = tarfile.TarInfo("model.safetensors")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(SPARSE_BYTES)}
    info.pax_headers |= {"GNU.sparse.map": f"{SPARSE_BYTES},0", "GNU.sparse.numblocks": "1"}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(10_240)


# ---- files ----------------------------------------------------------------------------------------------------------


def weights(files: Files) -> Iterator[tuple[str, Files]]:
    """Weights whose headers lie, and programs in place of weights."""
    good = files["model.safetensors"]
    for name, content in {
        "length 2**63": struct.pack("<Q", 2**63) + good[8:],
        "length beyond the file": struct.pack("<Q", len(good) * 2) + good[8:],
        "99 MB of spaces": struct.pack("<Q", 99_000_000) + b"{" + b" " * 98_999_998 + b"}",
        "deep": header("[" * DEEP),
        "no object": header("[]"),
        "NaN": header('{"a": NaN}'),
        "cut off": good[: len(good) // 2],
        "empty": b"",
        "unknown type": header(tensor(dtype="F9000")),
        "negative offsets": header(tensor(data_offsets=[-8, 0])),
        "offsets beyond the file": header(tensor(data_offsets=[0, 2**62])),
        "overflowing shape": header(tensor(shape=[2**32, 2**32, 2**32])),
        "negative shape": header(tensor(shape=[-1, -4])),
        "huge integer": header(tensor(shape=[1]).replace("[1]", "[" + "9" * 5000 + "]")),
        "200,000 tensors": header(json.dumps({str(n): json.loads(tensor())["a"] for n in range(200_000)})),
        "a pickle": pickle.dumps(_Shell()),
    }.items():
        yield name, {**files, "model.safetensors": content}
    yield "pytorch_model.bin", {**files, "pytorch_model.bin": pickle.dumps(_Shell())}


def tensor(**fields: Any) -> str:
    """A header with one tensor."""
    return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **fields}})


def header(text: str) -> bytes:
    """A safetensors file with this header and four bytes of data."""
    return struct.pack("<Q", len(text)) + text.encode() + bytes(4)


def configurations(files: Files) -> Iterator[tuple[str, Files]]:
    """Configurations with absurd sizes, code and shapes."""
    good = json.loads(files["config.json"])
    changes: list[dict[str, Any]] = [
        *(
            {key: 10**9}
            for key in ("num_labels", "hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
        ),
        *({key: value} for key in ("hidden_size", "vocab_size") for value in (-1, 0, 1e400, "64", None, [64], True)),
        {"auto_map": {"AutoModel": "x--evil.Model"}, "trust_remote_code": True},
        {"model_type": "../../x"},
        {"rope_scaling": {"type": "x" * 1_000_000}},
        {"id2label": {str(n): "x" for n in range(200_000)}},
    ]
    for change in changes:
        text = json.dumps({**good, **change}).replace("Infinity", "1e400")
        yield str(change)[:60], {**files, "config.json": text.encode()}
    for text in ("[" * DEEP, '{"a":' * DEEP, "[]", "null", "", '{"a": "' + "x" * 20_000_000 + '"}', "\xff\xfe"):
        yield f"configuration {text[:10]!r}", {**files, "config.json": text.encode("latin-1")}
    code = f"open('/tmp/{CANARY}', 'w')".encode()
    yield "code", {**files, "modeling_evil.py": code, "configuration_evil.py": code}


def tokenizers(files: Files) -> Iterator[tuple[str, Files]]:
    """Tokenizers that grow texts, run for long, or do not fit together."""
    good = json.loads(files["tokenizer.json"])
    double = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 18
    slow = {"type": "Split", "pattern": {"Regex": "(a+)+$|(a|a)*b"}, "behavior": "Isolated", "invert": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    changes: dict[str, dict[str, Any]] = {
        "18 × a to aa": {"normalizer": {"type": "Sequence", "normalizers": double}},
        "a pattern that backtracks": {"pre_tokenizer": slow},
        "a name of 4 MB": {"added_tokens": [{"id": 0, "special": True, **flags, "content": "x" * 4_000_000}]},
        "a map of rubbish": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 100}},
        "normalizers of normalizers": {"normalizer": nested_normalizers(300)},
        "a long decoder": {"decoder": {"type": "Sequence", "decoders": double}},
        "merges of nothing": {"model": {**good["model"], "merges": [["no", "such"]]}},
        "no words": {"model": {**good["model"], "vocab": {}}},
        "numbers of words": {"model": {**good["model"], "vocab": {"a": 2**40, "b": -1}}},
    }
    for name, change in changes.items():
        yield name, {**files, "tokenizer.json": json.dumps({**good, **change}).encode()}
    for text in ("[" * DEEP, "{}", "null", files["tokenizer.json"][:1000].decode("utf-8", "ignore")):
        yield f"tokenizer {text[:10]!r}", {**files, "tokenizer.json": text.encode()}


def nested_normalizers(depth: int) -> dict[str, Any]:
    """A sequence of a sequence, so many times."""
    normalizer: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        normalizer = {"type": "Sequence", "normalizers": [normalizer, {"type": "Lowercase"}]}
    return normalizer
