"""report.html: one page that needs nothing else."""

import base64
import io
import json
import re

import pytest
from PIL import Image

import Prepare
from dataset.releases.defects import Finding
from dataset.releases.report_page import worst
from tests.small_releases import WORDS, entry, make_release

ODD = '<script>alert("x")</script> & more'


@pytest.fixture
def page(tmp_path):
    entries = [entry(f"beach_{number}.jpg", "train") for number in range(1, 8)]
    entries += [entry("beach_8.jpg", "val", [ODD, "a beach"]), entry("beach_9.jpg", "test")]
    release = make_release(tmp_path / "release", "rsicd", entries)
    images = release / "images"
    (images / "beach_1.jpg").write_bytes(b"")
    (images / "beach_9.jpg").write_bytes((images / "beach_8.jpg").read_bytes())
    Prepare.main(["--dataset", "rsicd", "--release", str(release), "--output_dir", str(tmp_path / "out")])
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_a_near_duplicate_side_by_side_with_splits_and_captions(page):
    pair = re.search(r'<div class="pair">.*?</div>\s*</div>', page, re.DOTALL)[0]
    assert pair.count("<img ") == 2
    assert 'class="split val">val' in pair and 'class="split test">test' in pair
    assert "a beach" in pair and WORDS[0] in pair


def test_the_pictures_are_in_the_page(page):
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()
    assert "http" not in page and "<script" not in page


def test_a_name_that_leads_outside_brings_no_file_into_the_page(page, tmp_path):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes((tmp_path / "release" / "images" / "beach_5.jpg").read_bytes())
    file = tmp_path / "release" / "dataset_rsicd.json"
    images = json.loads(file.read_text())["images"]
    more = [entry(str(outside), "train"), entry("../../outside.jpg", "train")]
    file.write_text(json.dumps({"images": [*images, *more]}))
    Prepare.main(["--dataset", "rsicd", "--release", str(file.parent), "--output_dir", str(tmp_path / "out")])
    again = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert again.count("<img ") == page.count("<img ")
    assert again.count("cannot be shown") == page.count("cannot be shown") + 2


def test_a_damaged_picture_has_a_place_and_a_reason(page):
    assert "cannot be shown" in page and "cannot identify image file" in page


def test_a_deep_picture_is_not_shown_clipped_to_white(page, tmp_path):
    Image.new("I;16", (48, 48), 9000).save(tmp_path / "release" / "images" / "beach_2.jpg", "PNG")
    release, output = str(tmp_path / "release"), str(tmp_path / "out")
    Prepare.main(["--dataset", "rsicd", "--release", release, "--output_dir", output])
    again = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert again.count("cannot be shown") == page.count("cannot be shown") + 1


def test_captions_are_text_not_markup(page):
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; more" in page


def test_every_kind_of_defect_is_counted_with_its_rule(page, tmp_path):
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for values in report["defects"].values():
        rule = values["rule"].replace("'", "&#39;")
        row = f'{values["title"]}</td><td class="number">{values["count"]}</td><td class="number">'
        assert row + f"{values['pictures']}</td><td>{rule}</td>" in page


def test_the_worst_come_first_and_a_picture_once():
    findings = [
        Finding("a", "1", weight=1),
        Finding("b", "3", weight=3),
        Finding("a", "2", weight=2),
        Finding("c", "0"),
    ]
    assert [finding.detail for finding in worst(findings, 2)] == ["3", "2"]
