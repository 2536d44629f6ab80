"""Laws of upkeep of a catalog with plans: what a plan cites stays, and what is exported can be read elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from test_cli import run

from catalog.errors import BadInput
from catalog.store import Store
from flows.site import site_at, store_at
from flows.upkeep import export_records, unneeded


@pytest.fixture
def site(tmp_path: Path):
    """A site whose plan cites the oldest of three records of one key."""
    made = site_at(str(tmp_path / "var"), str(tmp_path / "plans"))
    frame = pl.DataFrame({"op": ["qkv"], "time_s": [1e-5]})
    names = [made.store.put("fingerprint", {"model": "a", "tp": 1}, note={"n": n}, frame=frame) for n in range(3)]
    plan = {"provenance": {"fingerprints": [str(names[0])], "sources": {"reference": 1}}}
    made.plans.publish(1, {"plan.json": json.dumps(plan).encode()})
    return made


def test_what_a_plan_cites_stays(site) -> None:
    """Of three records the newest stays, and the one that a plan cites."""
    assert [site.store.read(name).note["n"] for name in unneeded(site)] == [1]


def test_gc_lists_and_deletes_only_when_told_to(site, tmp_path: Path, capsys) -> None:
    """`catalog gc` names what is not needed; --delete deletes it, and nothing else."""
    where = ["--root", str(tmp_path / "var"), "--out", str(tmp_path / "plans")]
    code, said, _ = run(capsys, "catalog", "gc", *where)
    assert code == 0
    assert "1 records not needed" in said
    assert len(site.store.names()) == 3
    code, said, _ = run(capsys, "catalog", "gc", "--delete", "--json", *where)
    assert json.loads(said)["deleted"] is True
    assert [site.store.read(name).note["n"] for name in site.store.names()] == [0, 2]


@pytest.mark.usefixtures("site")
def test_an_exported_catalog_is_a_catalog(tmp_path: Path, capsys) -> None:
    """The newest records lie under the other root, sound, where a night there finds them."""
    code, said, _ = run(capsys, "catalog", "export", str(tmp_path / "other"), "--root", str(tmp_path / "var"))
    assert (code, said) == (0, f"1 records exported to {tmp_path / 'other'}\n")
    other = store_at(str(tmp_path / "other"))
    record = other.get("fingerprint", {"model": "a", "tp": 1})
    assert record is not None
    assert record.note["n"] == 2
    assert not other.verify()


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_table_holds_every_row_with_its_key(site, tmp_path: Path, name: str) -> None:
    """One flat table: the record's name, its key, its rows."""
    site.store.put("observed", {"intent": "chat"}, note={"rate": 3})
    assert export_records(site.store, str(tmp_path / name), kind=None) == 2
    table = (pl.read_parquet if name.endswith("parquet") else pl.read_csv)(tmp_path / name)
    assert table.filter(pl.col("key_model") == "a").select("op", "time_s").rows() == [("qkv", 1e-5)]
    assert json.loads(table.filter(pl.col("key_intent") == "chat")["note"][0]) == {"rate": 3}


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    """An empty catalog, or a kind without records, is bad input."""
    with pytest.raises(BadInput, match="no records of kind 'observed'"):
        export_records(Store(tmp_path), str(tmp_path / "x.parquet"), kind="observed")
