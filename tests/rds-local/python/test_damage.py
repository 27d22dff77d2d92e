"""Each kind of damage really changes the snapshot's files, and what is restored from it is damaged in that way."""

import hashlib
from pathlib import Path

import pytest

FILL = "create table t (id int primary key, body text); insert into t select n, repeat(md5(n::text), 10) from generate_series(1, 2000) n"
COUNT = "select count(body) from t"
GOOD = "select count(*) from t where body = repeat(md5(id::text), 10)"


@pytest.fixture
def shot(region):
    """A Region with a snapshot `shot` of a table."""
    region.instance("orders")
    region.psql("orders", FILL).value
    region.snapshot("shot", "orders")
    return region


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_zeroed_page_loses_rows_silently(shot):
    done = shot.damage("shot", {"zeroPage": {"table": "public.t", "block": 3}})
    assert Path(done["file"]).read_bytes()[3 * 8192 : 4 * 8192] == bytes(8192)
    shot.restore("restored", "shot")
    assert 1900 < int(shot.psql("restored", COUNT).value) < 2000
    assert shot.psql("orders", COUNT).value == "2000"


def test_a_truncated_file_loses_its_last_rows(shot):
    done = shot.damage("shot", {"truncateFile": {"table": "public.t", "blocks": 2}})
    assert "2 block" in done["what"]
    shot.restore("restored", "shot")
    assert 1900 < int(shot.psql("restored", COUNT).value) < 2000


def test_flipped_bytes_are_an_error_unless_the_checksum_was_made_right(shot):
    for snapshot in ["left", "fixed"]:
        shot.client.copy_db_snapshot(SourceDBSnapshotIdentifier="shot", TargetDBSnapshotIdentifier=snapshot)
        shot.wait_snapshot(snapshot)
    flip = {"table": "public.t", "block": 1, "offset": 8000, "bytes": 2}
    shot.damage("left", {"flipBytes": flip | {"fixChecksum": False}})
    shot.damage("fixed", {"flipBytes": flip | {"fixChecksum": True}})
    for name in ["left", "fixed", "shot"]:
        shot.restore(f"from-{name}", name)
    assert "invalid page in block 1" in shot.psql("from-left", COUNT).error
    assert (shot.psql("from-fixed", COUNT).value, shot.psql("from-fixed", GOOD).value) == ("2000", "1999")
    assert shot.psql("from-shot", GOOD).value == "2000", "a copy shares no file with its source"


def test_without_checksums_flipped_bytes_are_silent(rds, region):
    rds.configure(initdbChecksums=False)
    region.instance("orders")
    assert region.psql("orders", "show data_checksums").value == "off"
    region.psql("orders", FILL).value
    region.snapshot("shot", "orders")
    region.damage("shot", {"flipBytes": {"table": "public.t", "block": 1, "offset": 8000}})
    region.restore("restored", "shot")
    assert (region.psql("restored", COUNT).value, region.psql("restored", GOOD).value) == ("2000", "1999")


def test_a_stale_page_is_as_the_older_snapshot_has_it(shot):
    shot.psql("orders", "update t set body = 'new' where ctid >= '(5,1)' and ctid < '(6,1)'").value
    shot.snapshot("newer", "orders")
    before = {path: digest(path) for path in files(shot, "shot")}
    done = shot.damage("newer", {"stalePage": {"table": "public.t", "block": 5, "fromSnapshot": "shot"}})
    assert "older" in done["what"]
    assert before == {path: digest(path) for path in files(shot, "shot")}, "the older one is left alone"
    shot.restore("restored", "newer")
    scan = "set enable_indexscan = off; set enable_bitmapscan = off; select count(*) from t"
    assert int(shot.psql("restored", scan).value) > 2000


def files(region, snapshot):
    place = Path(region.state()["snapshots"][snapshot]["dir"])
    return [path for path in place.rglob("*") if path.is_file()]


def test_statements_change_the_snapshot_alone(shot):
    shot.damage("shot", {"sql": {"statements": ["delete from t where id = 7", "update t set body = 'x' where id = 8"]}})
    shot.restore("restored", "shot")
    assert shot.psql("restored", COUNT).value == "1999"
    assert shot.psql("restored", "select body from t where id = 8").value == "x"
    assert shot.psql("orders", GOOD).value == "2000"


def test_a_corrupt_index_is_what_amcheck_is_for(shot):
    shot.damage("shot", {"corruptIndex": {"index": "public.t_pkey"}})
    shot.restore("restored", "shot")
    assert shot.psql("restored", COUNT).value == "2000"
    assert "item order invariant violated" in shot.psql("restored", "select bt_index_check('t_pkey', true)").error


def test_a_torn_log_loses_what_was_durable(region):
    region.instance("orders")
    region.psql("orders", FILL).value
    region.psql("orders", "checkpoint")
    region.psql("orders", "insert into t values (100001, 'kept')").value
    limit = region.psql("orders", "select pg_current_wal_insert_lsn()").value
    region.psql("orders", "insert into t values (100002, 'lost')").value
    region.snapshot("shot", "orders")
    high, low = limit.split("/")
    done = region.damage("shot", {"tearWal": {"beforeLsn": f"{high}/{int(low, 16) + 1:X}"}})
    assert "unreadable" in done["what"]
    region.restore("restored", "shot")
    assert region.psql("restored", "select id from t where id > 100000").value == "100001"


def test_a_log_torn_by_default_loses_something(shot):
    shot.damage("shot", {"tearWal": {}})
    shot.restore("restored", "shot")
    assert shot.psql("restored", COUNT).text != "2000"


def test_damage_that_cannot_be_done_says_why(shot):
    def refused(snapshot, kind):
        order = {"region": shot.name, "snapshot": snapshot, "database": "app", "kind": kind}
        status, answer = shot.rds.control("POST", "damage", order)
        return status, answer.get("error", "")

    assert refused("absent", {"zeroPage": {"table": "t", "block": 0}})[0] == 409
    assert "no block 999" in refused("shot", {"zeroPage": {"table": "t", "block": 999}})[1]
    assert "does not exist" in refused("shot", {"zeroPage": {"table": "absent", "block": 0}})[1]
    assert refused("shot", {"flipBytes": {"table": "t", "block": 0, "offset": 8190, "bytes": 9}})[0] == 409
    assert "no B-tree" in refused("shot", {"corruptIndex": {"index": "public.t"}})[1]
    assert "replay nothing" in refused("shot", {"tearWal": {}})[1], "the refusals above settled it"
    assert refused("shot", {"explode": {}})[0] == 400
    assert refused("shot", {"zeroPage": {"table": "t"}})[0] == 400
