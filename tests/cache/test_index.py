import numpy as np

from featx.cache.index import FAILED, MISSING, Index, KeyTables
from featx.cache.reader import parse_shard
from featx.cache.shard import build_shard


def shard(keys, *, published, failures=(), decoder="decoder 1", value=0.0):
    return parse_shard(
        build_shard(
            keys,
            np.full((len(keys), 2), value, np.float32),
            failures=failures,
            fingerprint="f",
            decoder=decoder,
            provenance="{}",
            published=published,
        )
    )


def read(index, positions):
    found = np.empty((len(positions), 2), np.float32)
    index.read(np.asarray(positions), found)
    return found[:, 0].tolist()


def test_keys_that_share_their_first_bytes_are_told_apart():
    keys = np.zeros((300, 32), np.uint8)
    keys[:, 31] = np.arange(300) % 256
    keys[256:, 30] = 1
    table = KeyTables().extended([keys], [np.arange(300)])
    shuffled = np.random.default_rng(0).permutation(300)
    assert table.find(keys[shuffled], keys.__getitem__).tolist() == shuffled.tolist()
    absent = np.zeros((1, 32), np.uint8)
    absent[0, 20] = 9
    assert table.find(absent, keys.__getitem__).tolist() == [MISSING]


def test_the_greatest_and_the_smallest_key_are_found():
    keys = np.array([[0] * 32, [255] * 32], np.uint8)
    table = KeyTables().extended([keys], [np.arange(2)])
    assert table.find(keys, keys.__getitem__).tolist() == [0, 1]
    assert KeyTables().find(keys, keys.__getitem__).tolist() == [MISSING, MISSING]


def test_a_table_equals_a_dictionary(make_keys):
    keys = make_keys(500)[np.random.default_rng(1).integers(0, 500, 900)]
    table = KeyTables()
    for part in np.array_split(np.arange(900), 7):
        table = table.extended([keys[part]], [part])
    first = {}
    for position, key in enumerate(keys):
        first.setdefault(key.tobytes(), position)
    asked = make_keys(600)
    assert table.find(asked, keys.__getitem__).tolist() == [
        first.get(key.tobytes(), MISSING) for key in asked
    ]


def test_the_older_shard_serves_whichever_is_seen_first(make_keys):
    keys = make_keys(1)
    old, new = shard(keys, published=1.0, value=1), shard(keys, published=2.0, value=2)
    for order in ([old, new], [new, old]):
        at_once = Index("decoder 1").changed(added=order)
        one_by_one = Index("decoder 1").changed(added=order[:1]).changed(added=order[1:])
        for index in (at_once, one_by_one):
            assert read(index, index.lookup(keys)) == [1.0]
    without = Index("decoder 1").changed(added=[old, new]).changed(gone={old.name})
    assert read(without, without.lookup(keys)) == [2.0]


def test_shards_of_one_moment_serve_in_the_order_of_their_names(make_keys):
    keys = make_keys(1)
    shards = [shard(keys, published=1.0, value=value) for value in range(6)]
    first = min(shards, key=lambda one: one.name)
    for order in (shards, shards[::-1]):
        index = Index("decoder 1").changed(added=order)
        assert index.lookup(keys)[0] in range(6)
        assert read(index, index.lookup(keys)) == read(Index("decoder 1").changed(added=[first]), [0])


def test_positions_keep_their_meaning_when_shards_come_and_go(make_keys):
    keys = make_keys(4)
    one = Index("decoder 1").changed(added=[shard(keys[:2], published=5.0, value=5)])
    position = one.lookup(keys[:1])
    two = one.changed(added=[shard(keys[2:], published=1.0, value=1)])
    three = two.changed(gone=set(one.slots))
    for index in (one, two, three):
        assert read(index, position) == [5.0]
        assert index.keys_at(position).tobytes() == keys[0].tobytes()
    assert three.lookup(keys).tolist() == [MISSING, MISSING, 2, 3]


def test_a_vector_beats_a_failure_and_a_failure_counts_for_its_own_decoder_only(make_keys):
    keys = make_keys(3)
    failed = shard(
        keys[:0], published=1.0, failures=[(keys[0].tobytes(), "half a JPEG"), (keys[1].tobytes(), "empty")]
    )
    vector = shard(keys[:1], published=2.0, value=7)
    index = Index("decoder 1").changed(added=[failed, vector])
    assert index.lookup(keys).tolist() == [2, FAILED, MISSING]
    assert index.reason(keys[1:2]) == "empty"
    assert index.reason(keys[2:]) is None
    assert Index("decoder 2").changed(added=[failed, vector]).lookup(keys).tolist() == [2, MISSING, MISSING]


def test_a_thousand_small_additions_leave_few_tables_and_serve_what_came_first(make_keys):
    keys = make_keys(900)
    table = KeyTables()
    for position in range(1000):
        table = table.extended([keys[position % 900][None]], [np.array([position])])
    assert len(table.tables) <= 10
    assert table.find(keys, keys.__getitem__).tolist() == list(range(900))


def test_more_keys_than_are_looked_up_at_a_time_are_all_found(make_keys, monkeypatch):
    monkeypatch.setattr("featx.cache.index._KEYS_AT_ONCE", 7)
    keys = make_keys(40)
    table = KeyTables().extended([keys[:30]], [np.arange(30)])
    assert table.find(keys, keys.__getitem__).tolist() == [*range(30), *[MISSING] * 10]


def test_vectors_are_read_in_any_order_across_shards_and_more_than_once(make_keys):
    keys = make_keys(12)
    parts = [keys[start::3] for start in range(3)]
    index = Index("decoder 1")
    for number, part in enumerate(parts):
        values = np.arange(number, 12, 3, dtype=np.float32)[:, None].repeat(2, axis=1)
        image = build_shard(
            part,
            values,
            failures=(),
            fingerprint="f",
            decoder="decoder 1",
            provenance="{}",
            published=float(number),
        )
        index = index.changed(added=[parse_shard(image)])
    for wanted in (range(12), [11, 0, 5, 5, 3, 0], [7], [9, 6, 3, 0]):
        assert read(index, index.lookup(keys[list(wanted)])) == list(wanted)
