"""The encrypted file: read as it was written, or not at all."""

import io

import pytest

from gateway.model.errors import BadInput
from gateway.storage import sealed
from gateway.storage.sealed import SealedReader, SealedWriter


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_COST", bytes((4, 8, 1)))
    monkeypatch.setattr(sealed, "CHUNK", 64)


def seal(content: bytes) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, b"secret")
    for start in range(0, len(content), 50):
        writer.write(content[start : start + 50])
    writer.finish()
    return file.getvalue()


def unseal(file: bytes, passphrase: bytes = b"secret") -> bytes:
    reader = SealedReader.open(io.BytesIO(file), passphrase)
    content = b""
    while part := reader.read(33):
        content += part
    reader.finish()
    return content


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1_000])
def test_what_goes_in_comes_out(size: int) -> None:
    content = bytes(range(256)) * 4
    assert unseal(seal(content[:size])) == content[:size]


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    content = b"at home " * 40
    first, second = seal(content), seal(content)
    assert b"at home" not in first
    assert first[80:] != second[80:]


def test_a_wrong_passphrase_is_told_from_damage() -> None:
    with pytest.raises(BadInput, match="The passphrase is wrong"):
        unseal(seal(b"x"), b"Secret")


def test_every_changed_byte_is_noticed() -> None:
    whole = seal(b"x" * 200)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        with pytest.raises(BadInput):
            unseal(bytes(damaged))


def test_every_cut_is_noticed_also_between_chunks() -> None:
    whole = seal(b"x" * 200)
    for size in range(len(whole)):
        with pytest.raises(BadInput):
            unseal(whole[:size])


def test_chunks_that_were_swapped_repeated_or_added_are_noticed() -> None:
    whole = seal(b"x" * 200)
    start, size = sealed._HEADER, 64 + sealed._TAG
    head, first, second, rest = (
        whole[:start],
        whole[start:][:size],
        whole[start + size :][:size],
        whole[start + 2 * size :],
    )
    for damaged in (
        head + second + first + rest,
        head + first + first + second + rest,
        whole + first,
        head + second + rest,
    ):
        with pytest.raises(BadInput, match="damaged"):
            unseal(damaged)


def test_a_header_cannot_make_us_take_all_the_memory() -> None:
    whole = bytearray(seal(b"x"))
    whole[9] = 40
    with pytest.raises(BadInput, match="damaged"):
        unseal(bytes(whole))
