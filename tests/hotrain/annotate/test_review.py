"""The review page in a real browser, its server under attack, and what its verdicts do."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from click.testing import CliRunner
from drawn import ColorNetwork, paint, scene, tree_bytes, write_frames, write_image
from PIL import Image
from test_api import save_run

from hodata.cli import cli as hodata_cli
from hodata.labels import TASKS
from hodata.report.html import head
from hodata.shards.reader import ShardIndex
from hotrain.annotate.apply import apply_review
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate
from hotrain.annotate.review import Reviewed, parse_review, read_review, review_text, write_page
from hotrain.annotate.serve import ReviewServer
from hotrain.cli import cli
from hotrain.errors import AnnotateError

# Where it entered a script element as it is, the element would not end where it should (HTML, section 4.12.1.3).
HOSTILE = "<!--<script><img src=x onerror=alert(1)>"


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Eight frames of two cameras; one whose name is an attack, one without a hand, one broken."""
    root = tmp_path / "in"
    write_frames(root / "seq" / "rgb" / "0", 3)
    write_frames(root / "seq" / "rgb" / "1", 3)
    write_image(root / "seq" / "rgb" / "1" / f"{HOSTILE}.png")
    write_image(root / "seq" / "rgb" / "1" / "9.png", paint(np.zeros((48, 64), np.uint8)))
    (root / "seq" / "rgb" / "1" / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    config = AnnotateConfig(formats=("png", "honnotate", "coco"), batch_size=4, refine="none")
    annotate(ColorNetwork(), find_frames([str(root)], out=out), out, config)
    return out


@pytest.fixture
def server(annotated: Path) -> Iterator[ReviewServer]:
    write_page(annotated)
    with ReviewServer(annotated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["frame"]: row for row in map(json.loads, (out / "frames.jsonl").read_text().splitlines())}


def test_a_person_judges_frames_in_the_browser(server: ReviewServer, annotated: Path, tmp_path: Path) -> None:
    found = [row for row in rows(annotated).values() if row["status"] == "ok"]
    worst = [row["frame"] for row in sorted(found, key=lambda row: row["quality"])]
    assert worst[0] == "seq/rgb/1/9"
    names = "[...document.querySelectorAll('#list b')].map((name) => name.textContent)"
    with chromium(tmp_path / "profile") as page:
        page.open(server.address)
        assert set(page.run(names)) == {row["frame"] for row in found} and page.run(names)[0] == worst[0]
        assert page.run("document.getElementById('name').textContent") == worst[0]
        size = "document.getElementById('image').naturalWidth + 'x' + document.getElementById('mask').naturalHeight"
        page.until(f"({size}) === '64x48'")

        page.press("o")
        assert page.run("document.getElementById('mask').hidden") is True
        page.press("o")
        assert page.run("document.getElementById('mask').hidden") is False

        order = page.run(names)
        for key in "arg":
            page.press(key)
        page.press("ArrowRight")
        page.press("a")
        page.press("ArrowLeft")
        page.press("u")
        expected = {order[0]: "accept", order[1]: "reject", order[2]: "again"}
        page.until("document.body.dataset.saved === '3'")
        assert read_review(annotated / "review.json").frames == expected

        page.run("document.querySelector('[name=flag]').value = 'no-hand'")
        page.run("document.querySelector('form').dispatchEvent(new Event('change'))")
        assert page.run(names) == [worst[0]]
        page.run("document.querySelector('[name=flag]').value = ''")
        page.run("document.querySelector('[name=camera]').value = 'seq/0'")
        page.run("document.querySelector('form').dispatchEvent(new Event('change'))")
        assert sorted(page.run(names)) == [f"seq/rgb/0/{number}" for number in range(3)]

        page.open(server.address)  # a reload knows what was saved
        assert page.run("document.querySelectorAll('[data-is=accept]').length") == 1
        assert page.errors == [] and page.run("document.querySelectorAll('#list img').length") == 0


def shown(page: Path) -> list[str]:
    """The frames in a page's data, in its order."""
    (data,) = re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", page.read_text(), re.DOTALL)
    return [frame["name"] for frame in json.loads(data)["frames"]]


def test_a_limited_page_has_the_frames_of_lowest_quality(annotated: Path) -> None:
    found = [row for row in rows(annotated).values() if row["status"] == "ok"]
    order = [row["frame"] for row in sorted(found, key=lambda row: row["quality"])]
    qualities = sorted(row["quality"] for row in found)
    assert qualities[1] < qualities[2]  # or the second place would be a draw
    assert shown(write_page(annotated, limit=2)) == order[:2]
    assert sorted(shown(write_page(annotated))) == sorted(order) and len(order) == 8


def test_names_of_frames_are_never_markup(annotated: Path) -> None:
    page = write_page(annotated)
    assert f"seq/rgb/1/{HOSTILE}" in shown(page)
    assert "<!--" not in page.read_text() and "onerror=alert(1)>" in page.read_text()


def test_the_page_may_run_its_own_script_and_talk_to_its_own_server_alone(annotated: Path) -> None:
    page = write_page(annotated).read_text()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "connect-src": "'self'",
    }
    assert page.startswith("<!doctype html>") and page.count("<title>") == page.count("<header>") == 1
    assert "connect-src" not in head("another page", "", script)


def test_opened_as_a_file_it_offers_a_download(annotated: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["review", str(annotated), "--no-serve"])
    page_file = Path(done.stdout.strip())
    (tmp_path / "downloads").mkdir()
    with chromium(tmp_path / "profile") as page:
        page.open(page_file.resolve().as_uri())
        folder = str(tmp_path / "downloads")
        page._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
        page.press("a")
        page.press("r")
        assert page.run("document.getElementById('save').textContent") == "Download review.json"
        page.run("document.getElementById('save').click()")
        for _ in range(200):
            if (tmp_path / "downloads" / "review.json").exists():
                break
            page.run("new Promise((done) => setTimeout(done, 50))")
        assert page.errors == []
    assert sorted(read_review(tmp_path / "downloads" / "review.json").frames.values()) == ["accept", "reject"]


def request(
    server: ReviewServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_gives_nothing_else_to_nobody_else(server: ReviewServer, annotated: Path) -> None:
    inside = f"/{server.token}/"
    assert server.server_address[0] == "127.0.0.1"
    status, body = request(server, "GET", inside)
    assert status == 200 and body == (annotated / "review.html").read_bytes()
    (annotated.parent / "secret.txt").write_text("secret")
    for path in ("/", "/review.html", f"{inside}../secret.txt", f"{inside}%2e%2e/secret.txt", f"{inside}frames.jsonl"):
        status, body = request(server, "GET", path)
        assert status == 404 and b"secret" not in body and b"quality" not in body
    for path in (inside, f"{inside}review.json"):
        assert request(server, "GET", path, Host="evil.example")[0] == 403

    good = json.dumps({"version": 1, "model": "m", "frames": {"a": "accept"}}).encode()
    json_type = {"Content_Type": "application/json"}
    assert request(server, "POST", "/review.json", good, **json_type)[0] == 404
    assert request(server, "POST", f"{inside}other", good, **json_type)[0] == 404
    assert request(server, "POST", f"{inside}review.json", good, Origin="http://evil.example", **json_type)[0] == 403
    assert request(server, "POST", f"{inside}review.json", good, Content_Type="text/plain")[0] == 415
    assert request(server, "POST", f"{inside}review.json", b"{", **json_type)[0] == 400
    assert request(server, "POST", f"{inside}review.json", b"x", Content_Length=str(2**40), **json_type)[0] == 413
    assert not (annotated / "review.json").exists()
    assert request(server, "POST", f"{inside}review.json", good, Origin=server.origin, **json_type)[0] == 200
    assert read_review(annotated / "review.json").frames == {"a": "accept"}


def test_the_end_of_a_review_says_what_comes_next(annotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: ReviewServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", stopped)
    assert "no verdict was given" in CliRunner().invoke(cli, ["review", str(annotated)]).stderr
    (annotated / "review.json").write_text(json.dumps({"version": 1, "model": "m", "frames": {}}))
    done = CliRunner().invoke(cli, ["review", str(annotated)])
    assert done.exit_code == 0 and f"hotrain annotate --apply {annotated}/review.json --out {annotated}" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "no JSON"),
        ("[]", "no review"),
        ('{"version": 2}', "version 1"),
        ('{"version": 1, "model": 3, "frames": {}}', "lacks"),
        ('{"version": 1, "model": "m", "frames": {"a": ["accept"]}}', "a verdict is accept"),
    ],
)
def test_reviews_that_are_none(text: str, message: str) -> None:
    with pytest.raises(AnnotateError, match=message):
        parse_review(text.encode(), "x")


def review_of(out: Path, **frames: str) -> Any:
    model = json.loads((out / ".annotate" / "plan.json").read_text())["model"]
    named = {f"seq/rgb/{name[1]}/{name[2]}": verdict for name, verdict in frames.items()}
    return parse_review(json.dumps({"version": 1, "model": model, "frames": named}).encode(), "x")


class Inverted(ColorNetwork):
    """Calls hands objects and objects hands."""

    def logits(self, prepared: Any) -> Any:
        return super().logits(prepared)[:, [0, 2, 1, 3]]


def test_verdicts_are_done(annotated: Path, tmp_path: Path) -> None:
    before = tree_bytes(annotated)
    review = review_of(annotated, f00="accept", f01="reject", f10="accept", f12="again")
    other = Inverted()
    other.identity = "inverted"
    with pytest.raises(AnnotateError, match="give --checkpoint"):
        apply_review(annotated, review, None)
    done = apply_review(annotated, review, other)
    assert (done.accepted, done.rejected, done.again) == (2, 1, 1)
    after = tree_bytes(annotated)
    assert "png/seq/rgb/0/1.png" not in after and "seq/segmentation/0/raw_seg_results/1.png" not in after
    kept = [name for name in before if name.startswith("png/") and not name.endswith(("0/1.png", "1/2.png"))]
    assert all(before[name] == after[name] for name in kept) and len(kept) == 7
    again = np.asarray(Image.open(annotated / "png/seq/rgb/1/2.png"))
    np.testing.assert_array_equal(again == 10, scene(2)[1] == 1)
    found = rows(annotated)
    assert found["seq/rgb/0/1"]["status"] == "rejected" and found["seq/rgb/1/2"]["model"] == "inverted"
    assert found["seq/rgb/1/2"]["hand"]["area"] == int((scene(2)[1] == 2).sum())
    coco = json.loads((annotated / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"] if "rgb/0" in image["file_name"]] == [
        "seq/rgb/0/0.png",
        "seq/rgb/0/2.png",
    ]

    # Once more: nothing changes. Then the new look is accepted, and what was rejected cannot be.
    apply_review(annotated, review, other)
    assert tree_bytes(annotated) == after
    apply_review(annotated, review_of(annotated, f01="reject", f12="accept"), None)
    masks = sorted(
        path.relative_to(annotated / "accepted").as_posix() for path in (annotated / "accepted").rglob("*.png")
    )
    assert masks == ["images/seq/seq/rgb/1/2.png", "masks/seq/seq/rgb/1/2.png"]
    assert 'mask_origin = "model:inverted+accepted"' in (annotated / "accepted" / "labels.toml").read_text()
    with pytest.raises(AnnotateError, match="rejected before"):
        apply_review(annotated, review_of(annotated, f01="accept"), None)
    with pytest.raises(AnnotateError, match="would undo it"):
        annotate(ColorNetwork(), find_frames([str(tmp_path / "in")]), annotated, AnnotateConfig())


def test_rejected_frames_stay_so_whatever_a_later_review_says_of_others(annotated: Path) -> None:
    apply_review(annotated, review_of(annotated, f00="reject", f01="accept"), None)
    assert (annotated / "accepted").is_dir()
    done = apply_review(annotated, review_of(annotated, f01="reject"), None)
    found = rows(annotated)
    assert [found[f"seq/rgb/0/{n}"]["status"] for n in range(3)] == ["rejected", "rejected", "ok"]
    assert done.dataset is None and not (annotated / "accepted").exists()  # the only accepted one was rejected since


def test_a_second_look_that_fails_takes_nothing_back(annotated: Path, tmp_path: Path) -> None:
    apply_review(annotated, review_of(annotated, f02="reject"), None)
    before = rows(annotated)
    for name in ("0/1", "0/2"):
        (tmp_path / f"in/seq/rgb/{name}.png").write_bytes(b"")
    done = apply_review(annotated, review_of(annotated, f01="again", f02="again", f10="again"), ColorNetwork())
    assert (done.again, done.broken) == (1, 2)
    found = rows(annotated)
    assert found["seq/rgb/0/1"] == before["seq/rgb/0/1"] and (annotated / "png/seq/rgb/0/1.png").exists()
    assert found["seq/rgb/0/2"]["status"] == "rejected"


def test_an_image_of_another_size_is_named_and_can_be_judged_again(annotated: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in/seq/rgb/0/1.png", scene(1, (80, 60))[0])
    said: list[str] = []
    page = write_page(annotated, say=said.append).read_text()
    assert said == [
        "seq/rgb/0/1: is 80x60 now, and was 64x48 when it was annotated; judge it `again` (hatched on the page)"
    ]
    (entry,) = [
        entry
        for entry in json.loads(page.split('id="data">')[1].split("</script>")[0])["frames"]
        if entry["name"] == "seq/rgb/0/1"
    ]
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["mask"].partition(",")[2]))))
    assert layer.shape == (60, 80, 4) and set(np.unique(layer[..., 3])) == {90, 200}  # void everywhere
    with pytest.raises(AnnotateError, match=r"0/1.png: is 80x60 now, and was 64x48 .* judge it `again`"):
        apply_review(annotated, review_of(annotated, f00="accept", f01="accept"), None)
    assert not (annotated / "accepted").exists()
    done = apply_review(annotated, review_of(annotated, f00="accept", f01="again"), ColorNetwork())
    assert (done.accepted, done.again, done.broken) == (1, 1, 0)
    assert Image.open(annotated / "png/seq/rgb/0/1.png").size == (80, 60)


def test_verdicts_on_other_masks_are_put_aside(annotated: Path, tmp_path: Path) -> None:
    path = annotated / "review.json"
    path.write_bytes(review_text(review_of(annotated, f00="accept", f99="accept")))
    old = path.read_bytes()
    said: list[str] = []
    write_page(annotated, say=said.append)  # a frame that is not there any more
    assert dict(read_review(path).frames) == {"seq/rgb/0/0": "accept"}
    assert [kept.read_bytes() for kept in annotated.glob("review-before-*.json")] == [old]
    (aside,) = annotated.glob("review-before-*.json")
    assert said == [f"verdicts on masks that are no more: 1, kept in {aside}"]
    kept = path.read_bytes()
    write_page(annotated, say=said.append)
    assert len(said) == 1
    assert path.read_bytes() == kept and len(list(annotated.glob("review-before-*.json"))) == 1

    path.write_bytes(review_text(Reviewed("another", {"seq/rgb/0/0": "accept"})))
    write_page(annotated)
    assert read_review(path) == Reviewed("colors-48", {})

    path.write_bytes(review_text(review_of(annotated, f00="accept")))
    inputs = find_frames([str(tmp_path / "in")], out=annotated)
    annotate(ColorNetwork(), inputs, annotated, AnnotateConfig(refine="none", tta="flip"), overwrite=True)
    assert not path.exists()  # the same model, other masks
    assert len(list(annotated.glob("review-before-*.json"))) == 3


def test_accepted_frames_become_shards_that_never_test(annotated: Path, tmp_path: Path) -> None:
    review = review_of(annotated, f00="accept", f01="accept", f10="accept", f11="accept")
    dataset = apply_review(annotated, review, None).dataset
    done = CliRunner().invoke(
        hodata_cli, ["build", "--source", "folder", "--root", str(dataset), "--out", str(tmp_path / "shards")]
    )
    assert done.exit_code == 0, done.output
    index = ShardIndex.open(tmp_path / "shards")
    assert len(index) == 4 and len(index.select(split="test")) == 0
    assert set(index.column("mask_origin")) == {"model:colors-48+accepted"}
    assert set(index.column("meaning")) == {"hand-object-wrist"}
    assert len(set(index.column("group"))) == 1  # both cameras saw the same moments
    reader = index.reader()
    row = int(np.flatnonzero([name.startswith("accepted_out") for name in index.column("key")])[0])
    assert set(np.unique(reader.mask(row))) == {0, 9, 10}


@pytest.mark.parametrize(
    ("task", "extent", "meaning"),
    [("hand-object", "arm", "hand-object-arm"), ("hand", "wrist", "hand-wrist"), ("hand", "arm", "hand-arm")],
)
def test_accepted_masks_say_what_their_hands_and_background_may_be(
    tmp_path: Path, task: str, extent: str, meaning: str
) -> None:
    root, out = write_frames(tmp_path / "in" / "seq" / "rgb" / "0", 1), tmp_path / "out"
    annotate(ColorNetwork(TASKS[task]), find_frames([str(root.parents[2])]), out, AnnotateConfig(extent=extent))
    dataset = apply_review(out, review_of(out, f00="accept"), None).dataset
    assert dataset and f'\nmeaning = "{meaning}"\n' in (dataset / "labels.toml").read_text()


def test_reviews_of_something_else_are_refused(annotated: Path, tmp_path: Path) -> None:
    frames = {"version": 1, "model": "another", "frames": {}}
    with pytest.raises(AnnotateError, match="the review judged an annotation by the model another"):
        apply_review(annotated, parse_review(json.dumps(frames).encode(), "x"), None)
    with pytest.raises(AnnotateError, match="does not hold"):
        apply_review(annotated, review_of(annotated, f99="accept"), None)
    with pytest.raises(AnnotateError, match="no finished annotation"):
        write_page(tmp_path)


def test_the_commands(tmp_path: Path) -> None:
    """annotate, review, annotate --apply, with a run's folder."""
    run, out = save_run(tmp_path / "run"), tmp_path / "out"
    root = write_frames(tmp_path / "in", 3)
    start = ["annotate", "--checkpoint", str(run), "--out", str(out)]
    assert CliRunner().invoke(cli, [*start, str(root)]).exit_code == 0
    assert CliRunner().invoke(cli, ["review", str(out), "--no-serve"]).exit_code == 0
    model = json.loads((out / ".annotate" / "plan.json").read_text())["model"]
    verdicts = {"version": 1, "model": model, "frames": {"0": "accept", "1": "reject", "2": "again"}}
    (out / "review.json").write_text(json.dumps(verdicts))
    done = CliRunner().invoke(cli, [*start, "--apply", str(out / "review.json"), "--tta", "flip"])
    assert done.exit_code == 0, done.output
    assert "1 accepted, 1 rejected, 1 annotated again" in done.stderr
    found = rows(out)
    assert "flip_disagreement" in found["2"] and "flip_disagreement" not in found["0"]
    assert CliRunner().invoke(cli, [*start, "--apply", str(out / "review.json"), str(root)]).exit_code == 2
