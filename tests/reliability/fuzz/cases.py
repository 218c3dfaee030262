"""What fuzz tests try: telling numbers and texts, bytes and JSON with errors in them; and how a refusal is counted."""

import json

NUMBERS = [0, 1, -1, 2, 3, 127, 128, 255, 256, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
TEXTS = [
    "",
    "x",
    "\0",
    "\n",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "\udcff",
    "=1+1",
    "../../etc/passwd",
    "%",
    "%2B",
    "a" * 5000,
]
VALUES = [
    *NUMBERS,
    *TEXTS,
    None,
    True,
    False,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    {"a": {}},
]


def in_one_line(error):
    assert "\n" not in str(error), repr(str(error))
    return type(error).__name__


def mutated(image, chance):
    """Turn bits, write telling numbers, swap words, copy and cut: some of it, once or several times."""
    mutant = bytearray(image)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at, width = chance.randrange(len(mutant)), chance.choice([1, 2, 4, 8])
        at = min(at, len(mutant) - width)
        kind = chance.randrange(7)
        if kind == 0:
            mutant[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            mutant[at] = chance.randrange(256)
        elif kind == 2:
            mutant[at : at + width] = (chance.choice(NUMBERS) % 256**width).to_bytes(width, "little")
        elif kind == 3:
            found = int.from_bytes(mutant[at : at + width], "little") + chance.choice(
                [-256, -8, -1, 1, 8, 256]
            )
            mutant[at : at + width] = (found % 256**width).to_bytes(width, "little")
        elif kind == 4:
            one, other = (chance.randrange(len(mutant) // 8) * 8 for _ in range(2))
            mutant[one : one + 8], mutant[other : other + 8] = (
                mutant[other : other + 8],
                mutant[one : one + 8],
            )
        elif kind == 5:
            length = chance.randrange(1, min(100, len(mutant)))
            one, other = (chance.randrange(len(mutant) - length) for _ in range(2))
            mutant[other : other + length] = mutant[one : one + length]
        elif chance.random() < 0.2:
            del mutant[chance.randrange(100, len(mutant)) :]
            mutant.extend(bytes(16))
    return bytes(mutant)


def changed(value, chance, rate):
    """A copy of a JSON value with some of its parts replaced, dropped, doubled or wrapped."""
    if chance.random() < rate:
        kind = chance.randrange(4)
        if kind == 0 and isinstance(value, str) and value:
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(TEXTS) + value[at + chance.randrange(2) :]
        if kind == 1:
            for _ in range(chance.choice([1, 1, 1, 300, 700, 950])):
                value = [value] if chance.random() < 0.5 else {"a": value}
            return value
        if kind == 2 and isinstance(value, int | float):
            return -value if chance.random() < 0.3 else chance.choice(NUMBERS)
        return chance.choice(VALUES)
    if isinstance(value, dict):
        new = {key: changed(one, chance, rate) for key, one in value.items() if chance.random() > rate / 2}
        if chance.random() < rate:
            new[chance.choice(TEXTS)] = chance.choice(VALUES)
        return new
    if isinstance(value, list):
        new = [changed(one, chance, rate) for one in value if chance.random() > rate / 2]
        return new * 2 if chance.random() < rate else new
    return value


def some_json(value, chance, rates=(0.01, 0.05, 0.3)):
    """Mostly JSON, of something near to the value; sometimes its bytes with a few errors."""
    try:
        text = json.dumps(changed(value, chance, chance.choice(rates))).encode()
    except RecursionError:
        return b"[" * chance.randrange(100, 10_000)
    return mutated(text, chance) if len(text) > 200 and chance.random() < 0.3 else text
