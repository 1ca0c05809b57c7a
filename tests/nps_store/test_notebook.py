"""What notebooks show of stores and tasks."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from nps_store.compress import Options, compress
from nps_store.notebook import _table
from nps_store.store import Store


def test_store_and_task(zoo, tmp_path):
    path = tmp_path / "tasks.nps"
    compress(zoo.base, [zoo.source("two", calibrated=False)], path, options=Options(keep=0.1))
    with Store.open(path, base=zoo.base) as store:
        table = ET.fromstring(store._repr_html_())
        task = ET.fromstring(store.task("two")._repr_html_())
    assert table.find("caption").text.startswith("tasks.nps: 1 tasks of base")
    assert next(table.iter("td")).text == "two"
    assert ["labels", "a, tool"] in [[cell.text for cell in row] for row in task.iter("tr")]


def test_a_damaged_task_does_not_hide_the_store(zoo, tmp_path):
    path = tmp_path / "tasks.nps"
    sources = [zoo.source(name, calibrated=False) for name in ("two", "three")]
    compress(zoo.base, sources, path, options=Options(keep=0.1))
    with Store.open(path, base=zoo.base) as store:
        offset = store._container.root.tasks["two"].directory.offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with Store.open(path, base=zoo.base) as store:
        rows = list(ET.fromstring(store._repr_html_()).iter("tr"))
    assert [row[0].text for row in rows[1:]] == ["three", "two"]
    assert "damaged" in rows[2][1].text


def test_names_are_data_and_never_markup():
    assert "<script>" not in _table("<script>", ("a",), [("<script>",)])
