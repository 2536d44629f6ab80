"""`benchmarks.catalog`: few flips, kills and writers; the benchmark itself runs many."""

import json

from benchmarks import catalog
from catalog.store import Store


def test_its_figures_are_those_promised(capsys):
    """All flips are noticed, nothing is corrupt or lost after kills and races, and every figure is there."""
    catalog.main(True, ["--flips", "20", "--kills", "2", "--writers", "8", "--records", "100"])
    found = json.loads(capsys.readouterr().out)
    zero = ("flips_undetected", "corrupt_after_kill", "lost_after_kill", "lost_updates")
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert {"flips", "kills", "writers", "write_ms", "scan_ms_100"} <= found.keys()
    assert found["records_announced"] >= 2


def test_a_record_written_for_the_scan_is_a_record(tmp_path):
    """The bytes that fill a large store are those that the store itself would write."""
    store = Store(tmp_path)
    name = store.put("note", {"model": "7"}, note={"value": 7})
    file, data = catalog.record_bytes(7)
    assert str(name) == f"note/{file}"
    assert (tmp_path / str(name)).read_bytes() == data


def test_a_lost_record_would_be_counted(tmp_path):
    """The count of lost updates is no constant: absent, damaged and shared records count."""
    store = Store(tmp_path)
    names = [str(store.put("note", {"model": "one"}, note={"writer": n})) for n in range(3)]
    assert catalog.lost(store, names) == 0
    assert catalog.lost(store, [*names, names[0]]) == 1
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).chmod(0o644)
    (tmp_path / names[1]).write_bytes(b"{}")
    assert catalog.lost(store, names) == 2
