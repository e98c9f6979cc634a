"""From challenger to champion and back: what is refused, what is written down of it, and which bundle serves."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deployr_core import bundle as bundles
from deployr_core.model_format import MODEL_FILE
from deployr_core.packet import Scored
from deployr_core.registry.journal import (
    Action,
    CheckedItem,
    Deed,
    Head,
    JournalBroken,
    JournalKeys,
    chained,
    entry_bytes,
    verify,
)
from deployr_core.registry.roles import Person, Reason, RegistryRefused, Role, Wish
from deployr_core.registry.run import RUN_FILE, RUN_SIGNATURE_FILE, DeployType
from deployr_core.registry.standing import examined
from deployr_core.signing import SIGNATURE_FILE, sign_manifest, signing_key, trusted_key
from deployr_serve.adapters.bundle_files import DEPLOYED_FILE, read_bundle, read_marker
from deployr_serve.adapters.models import LOOKS_AGAIN_S, BundleFolder
from deployr_serve.adapters.run_shelf import TREES_FILE, read_run
from deployr_serve.core.audit import Ending
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import infer
from deployr_serve.core.registry_deeds import head_in
from deployr_serve.core.registry_journal import read_journal, verdict
from deployr_serve.core.registry_showing import Approvals
from tests.registry_parts import ADA, CALL, DEV, GRACE, PRIVATE, PUBLIC, VIC, Site, comparison_of, deed, journal_of

WITHIN_S = 5.0


@pytest.fixture
def site(tmp_path, bundle_files, clock):
    return Site(tmp_path, bundle_files, clock)


# -- who may what


async def test_a_trainer_who_approves_alone_is_refused_and_it_stands_in_journal_and_audit(site):
    run = await site.registered(trained_by="Ada")
    reason = await site.why_not(Action.APPROVED, run, by=ADA, why="it is mine, and good")
    entry, record = (await site.entries())[-1], site.audit.all[-1]
    assert reason is Reason.OWN_RUN
    assert (entry.action, entry.who, entry.tried, entry.reason) == (Action.REFUSED, "ada", "approved", "own-run")
    assert (record.by, record.said, record.reason, record.ending) == ("ada", "refused", "own-run", Ending.MINOR)
    assert (record.model_id, record.details["tried"], record.details["run"]) == ("hematocrit", "approved", run.run_id)
    assert (await site.standing()).runs[run.run_id].stage == "challenger"


async def test_a_viewer_who_deploys_is_refused_and_audited_and_nothing_is_swapped(site):
    run = await site.approved()
    assert await site.why_not(Action.DEPLOYED, run, by=VIC) is Reason.NOT_YOUR_ROLE
    assert [(each.by, each.reason) for each in site.audit.all if each.ending is Ending.MINOR] == [
        ("vic", "not-your-role")
    ]
    assert (site.serving(), site.tried) == ("1.0.0", [])


async def test_who_registered_a_run_cannot_approve_it_either(site):
    run = site.trained()
    site.shelf.take(site.trained_in / run.run_id)
    await site.do(Action.REGISTERED, run, by=ADA)
    assert await site.why_not(Action.APPROVED, run, by=ADA, why="good") is Reason.OWN_RUN


async def test_a_refusal_about_a_model_without_a_journal_is_audited_alone(site):
    wish = Wish(action=Action.DEPLOYED, run_id="<script>")
    with pytest.raises(RegistryRefused):
        await site.registry.do(wish, model_id="no/model", by=VIC, call=CALL)
    [record] = site.audit.all
    assert (record.by, record.model_id, record.reason) == ("vic", "", "unknown-run")
    assert "<script>" not in str(record)
    assert await site.entries() == ()


async def test_every_act_is_audited_with_how_far_the_journal_had_come(site):
    await site.deployed()
    heads = [head_in(record.details["journal"]) for record in site.audit.all]
    entries = await site.entries()
    assert heads == [entry.head for entry in entries]
    assert verify(entries, model_id="hematocrit", heads=heads) is None
    assert [record.said for record in site.audit.all] == ["registered", "approved", "deployed"]


# -- approval


async def test_an_approval_records_the_checklist_and_asks_for_a_word_where_it_failed(site):
    await site.deployed("1.1.0")
    run = await site.registered("1.2.0")
    parity = CheckedItem(item="parity", passed=True, said="equal to the bit")
    asked = {"by": GRACE, "why": "good", "checklist": (parity,)}
    assert await site.why_not(Action.APPROVED, run, **asked) is Reason.FAILED_ITEMS
    done = await site.do(Action.APPROVED, run, despite=True, **asked)
    assert [(each.item, each.passed) for each in done.entry.checklist] == [
        ("signed", True),
        ("compared with the champion", False),
        ("parity", True),
    ]


async def test_a_comparison_with_todays_champion_is_what_the_checklist_wants(site):
    champion = await site.deployed("1.1.0")
    run = await site.registered("1.2.0", beside=champion)
    done = await site.do(Action.COMPARED, run, by=DEV)
    assert (done.entry.replaces, done.entry.evidence_sha256) == (
        champion.run_id,
        comparison_of(run, champion).sha256,
    )
    approval = await site.do(Action.APPROVED, run, by=GRACE, why="good")
    assert all(item.passed for item in approval.entry.checklist)


async def test_a_comparison_of_another_bundle_is_not_recorded(site):
    champion = await site.deployed("1.1.0")
    run = await site.registered("1.2.0")
    (site.runs / "hematocrit" / run.run_id / "comparison.json").write_bytes(comparison_of(champion, run).to_json())
    assert await site.why_not(Action.COMPARED, run, by=DEV) is Reason.NOT_USABLE


async def test_a_run_that_was_changed_after_its_registration_is_not_approved(site):
    run = await site.registered()
    file = site.runs / "hematocrit" / run.run_id / RUN_FILE
    file.write_bytes(file.read_bytes().replace(b'"ada"', b'"eve"'))
    assert await site.why_not(Action.APPROVED, run, by=GRACE, why="good") is Reason.NOT_AS_REGISTERED


# -- deploying


async def test_a_run_that_is_not_approved_does_not_go_live(site):
    run = await site.registered()
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.WRONG_STAGE
    assert site.serving() == "1.0.0"


async def test_an_unsigned_bundle_does_not_go_live(site):
    run = await site.approved(signed=False)
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.NOT_SIGNED
    assert site.serving() == "1.0.0"


async def test_a_run_whose_record_nobody_signed_does_not_go_live_and_the_checklist_says_so(site):
    """Who trained it stands there, and nobody but a holder of the key may say that it was somebody else."""
    run = await site.registered()
    signature = site.runs / "hematocrit" / run.run_id / RUN_SIGNATURE_FILE
    kept = signature.read_bytes()
    signature.unlink()
    assert await site.why_not(Action.APPROVED, run, by=GRACE, why="good") is Reason.FAILED_ITEMS
    done = await site.do(Action.APPROVED, run, by=GRACE, why="good", despite=True)
    said = done.entry.checklist[0].said
    assert said.startswith("run.sig: expected a signature by a trusted key")
    assert "the run's record is not signed" in said
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.NOT_SIGNED
    signature.write_bytes(kept[:-12] + b"AAAAAAAAAA" + kept[-2:])
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.NOT_SIGNED
    signature.write_bytes(kept)
    await site.do(Action.DEPLOYED, run, by=DEV)


async def test_a_champion_from_before_records_were_signed_is_put_in_place_and_gone_back_to(site):
    first, second = await site.deployed("1.1.0"), await site.deployed("1.2.0")
    for run in (first, second):
        (site.runs / "hematocrit" / run.run_id / RUN_SIGNATURE_FILE).unlink()
    assert (await site.do(Action.DEPLOYED, second, by=DEV)).is_repeat
    assert (await site.do(Action.ROLLED_BACK, by=DEV, why="alarms")).note == ""
    assert site.serving() == "1.1.0"


# -- a journal that is signed


def keyed(site, key=PRIVATE, **changes):
    own = signing_key(key)
    return replace(site.registry, **{"keys": JournalKeys(signing=own, trusted=(own.public,)), **changes})


async def test_with_a_key_each_entry_is_signed_and_what_is_forged_whole_is_found_out(site, clock):
    site.registry = keyed(site)
    await site.deployed()
    keys = site.registry.keys.trusted
    found = await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)
    assert (found.fault, found.entries, found.signed) == (None, 3, 3)
    # Who can write to the store, and knows how digests are made, makes a journal that is whole in itself.
    forged = journal_of(
        *(Deed(**{name: getattr(each, name) for name in Deed.__struct_fields__}) for each in await site.entries())
    )
    await rewrite(site, forged)
    assert (await verdict(site.store, "hematocrit", now=clock.now())).fault is None
    fault = (await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)).fault
    assert fault.number == 1
    assert "expected a signature by the site's key" in fault.said
    with pytest.raises(JournalBroken):
        await site.do(Action.ROLLED_BACK, by=DEV, why="alarms")
    approvals = Approvals(site.store, clock=clock, keys=keys)
    shown = (await site.entries())[-1].bundle_sha256
    assert await Approvals(site.store, clock=clock).is_shown("hematocrit", shown)
    assert not await approvals.is_shown("hematocrit", shown)


async def test_signatures_are_looked_at_beside_those_who_are_answered_and_what_is_found_is_the_same(
    site, clock, monkeypatch
):
    site.registry = keyed(site)
    await site.deployed()
    keys, entries, where = site.registry.keys.trusted, await site.entries(), []

    def noting(*arguments, **named):
        where.append(threading.current_thread())
        return examined(*arguments, **named)

    monkeypatch.setattr("deployr_serve.core.registry_journal.examined", noting)
    journal = await read_journal(site.store, "hematocrit", now=clock.now(), keys=keys)
    assert journal.standing == examined(entries, model_id="hematocrit", keys=keys)
    await rewrite(site, (*entries[:2], msgspec.structs.replace(entries[2], signature=entries[1].signature)))
    found = await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)
    with pytest.raises(JournalBroken, match=r"entry 3: .*other bytes"):
        await read_journal(site.store, "hematocrit", now=clock.now(), keys=keys)
    assert (found.fault.number, "other bytes" in found.fault.said) == (3, True)
    assert len(where) == 3
    assert threading.current_thread() not in where


async def test_a_signature_of_another_key_or_of_another_entry_is_none(site, clock):
    theirs = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    site.registry = keyed(site)
    await site.registered()
    await site.registered("1.2.0")
    keys, entries = site.registry.keys.trusted, await site.entries()
    swapped = (entries[0], msgspec.structs.replace(entries[1], signature=entries[0].signature))
    assert "other bytes" in verify(swapped, model_id="hematocrit", keys=keys).said
    other = chained(deed(Action.OPENED), model_id="hematocrit", last=entries[1], key=signing_key(theirs))
    fault = verify((*entries, other), model_id="hematocrit", keys=keys)
    assert (fault.number, "got one by" in fault.said) == (3, True)


async def test_entries_from_before_there_was_a_key_count_once_somebody_vouches_for_them(site, clock):
    run = await site.deployed()
    unsigned = site.registry
    site.registry = keyed(site)
    keys = site.registry.keys.trusted
    assert (await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)).fault.number == 1
    with pytest.raises(JournalBroken, match="deployr models vouch"):
        await site.do(Action.ROLLED_BACK, by=DEV, why="alarms")
    assert await site.why_not(Action.VOUCHED, by=DEV, why="looked through") is Reason.NOT_YOUR_ROLE
    assert await site.why_not(Action.VOUCHED, by=GRACE, why=" ") is Reason.NO_WHY
    done = await site.do(Action.VOUCHED, by=GRACE, why="compared with the audit")
    assert (done.entry.number, done.entry.who) == (4, "grace")
    found = await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)
    assert (found.fault, found.entries, found.signed) == (None, 4, 1)
    await site.do(Action.RETIRED, run, by=GRACE, why="closed")
    # One that writes without the key is found out, and is vouched for or not.
    site.registry = unsigned
    await site.registered("1.2.0")
    assert (await verdict(site.store, "hematocrit", now=clock.now(), keys=keys)).fault.number == 6


async def test_who_only_verifies_adds_nothing_and_without_a_key_nobody_vouches(site):
    await site.registered()
    assert await site.why_not(Action.VOUCHED, by=GRACE, why="x") is Reason.NOT_SIGNED
    site.registry = keyed(site)
    await site.do(Action.VOUCHED, by=GRACE, why="x")
    site.registry = keyed(site, keys=replace(site.registry.keys, signing=None))
    with pytest.raises(SettingsInvalid, match="DEPLOYR_JOURNAL_KEY"):
        await site.registered("1.2.0")


async def rewrite(site, entries):
    """Put these entries in the place of those in the store, head and all, as somebody does who owns it."""
    for entry in entries:
        place = (f"journal.{entry.model_id}", f"{entry.number:08d}")
        record, expires = site.store._records[place]
        site.store._records[place] = (replace(record, content=entry_bytes(entry)), expires)
    record, expires = site.store._records["journal-head", "hematocrit"]
    head = replace(record, content=msgspec.json.encode(entries[-1].head))
    site.store._records["journal-head", "hematocrit"] = (head, expires)


async def test_trust_comes_from_the_sites_keys_and_from_nothing_else(site):
    run = await site.approved()
    registry = replace(site.registry, shelf=site.shelf_of(trusted_keys=()))
    with pytest.raises(RegistryRefused, match="DEPLOYR_TRUSTED_KEYS") as raised:
        await registry.do(Wish(action=Action.DEPLOYED, run_id=run.run_id), model_id="hematocrit", by=DEV, call=CALL)
    assert raised.value.reason is Reason.NOT_SIGNED


async def test_a_bundle_that_fails_its_trial_does_not_go_live(site):
    run = await site.approved()
    shelf = site.shelf_of(refused=lambda told: dict.fromkeys(told, "it crashes"))
    registry = replace(site.registry, shelf=shelf)
    with pytest.raises(RegistryRefused, match="it crashes"):
        await registry.do(Wish(action=Action.DEPLOYED, run_id=run.run_id), model_id="hematocrit", by=DEV, call=CALL)
    assert site.serving() == "1.0.0"
    assert (await site.standing()).champion is None


async def test_a_deployed_run_serves_and_the_marker_says_by_which_entry(site):
    run = await site.deployed()
    marker = read_marker(site.bundles / "hematocrit")
    assert (site.serving(), marker.run_id, marker.journal) == ("1.1.0", run.run_id, (await site.entries())[-1].head)
    assert site.tried == [run.bundle_sha256] * 2


async def test_deploying_the_champion_again_puts_it_in_place_and_writes_nothing(site):
    run = await site.deployed()
    before = await site.entries()
    (site.bundles / "hematocrit" / DEPLOYED_FILE).unlink()
    done = await site.do(Action.DEPLOYED, run, by=DEV)
    assert (site.serving(), await site.entries(), done.entry) == ("1.1.0", before, before[-1])
    done = await site.do(Action.DEPLOYED, run, by=GRACE)
    records = site.audit.all[-3:]
    assert [(record.by, record.details.get("again")) for record in records] == [
        ("dev", None),
        ("dev", "1"),
        ("grace", "1"),
    ]
    assert len({record.audit_id for record in records}) == 3
    assert await site.why_not(Action.DEPLOYED, run, by=VIC) is Reason.NOT_YOUR_ROLE


async def test_a_repeat_and_a_refusal_name_the_roles_that_somebody_has_for_this_model(site):
    run = await site.deployed()
    both = Person(
        name="mel",
        roles=frozenset({Role.DEVELOPER, Role.APPROVER}),
        only={Role.APPROVER: frozenset({"sepsis"})},
    )
    assert (await site.do(Action.DEPLOYED, run, by=both)).is_repeat
    assert await site.why_not(Action.RETIRED, run, by=both) is Reason.NOT_YOUR_ROLE
    assert [record.details["role"] for record in site.audit.all[-2:]] == ["developer"] * 2
    assert (await site.entries())[-1].role == "developer"


async def test_after_the_sites_key_was_exchanged_what_is_signed_anew_goes_live_again_and_can_be_gone_back_to(site):
    first, second = await site.deployed("1.1.0"), await site.deployed("1.2.0")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    new = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for run in (first, second):
        at = site.runs / "hematocrit" / run.run_id / "bundle"
        (at / SIGNATURE_FILE).write_bytes(sign_manifest((at / bundles.MANIFEST_FILE).read_bytes(), pem))
    site.registry = replace(site.registry, shelf=site.shelf_of(trusted_keys=(new,)))
    assert (await site.do(Action.DEPLOYED, second, by=DEV)).is_repeat
    assert (await site.do(Action.ROLLED_BACK, by=DEV, why="alarms")).note == ""
    assert site.serving() == "1.1.0"
    for run in (first, second):
        assert (
            read_bundle(site.bundles / "hematocrit" / run.bundle_sha256, trusted_keys=(trusted_key(new),)).digest
            == run.bundle_sha256
        )


async def test_of_two_deployments_at_once_the_champions_bundle_is_the_one_in_place(site):
    runs = [await site.approved(version) for version in ("1.1.0", "1.2.0")]
    await asyncio.gather(*(site.do(Action.DEPLOYED, run, by=DEV) for run in runs))
    champion = (await site.standing()).champion
    assert read_marker(site.bundles / "hematocrit").run_id == champion
    assert champion in {run.run_id for run in runs}


async def test_a_bundle_that_was_changed_on_the_shelf_does_not_go_live(site):
    run = await site.approved()
    (site.runs / "hematocrit" / run.run_id / "bundle" / MODEL_FILE).write_bytes(b"other trees")
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.NOT_USABLE


async def test_what_a_running_app_will_not_take_is_said(site):
    run = await site.approved(score_name="OTHER")
    done = await site.do(Action.DEPLOYED, run, by=DEV)
    assert done.note.endswith("expected the same outputs and score name; start the app again")


async def test_a_broken_journal_stops_everything_and_is_audited(site):
    run = await site.approved()
    key = ("journal.hematocrit", "00000001")
    del site.store._records[key]
    with pytest.raises(JournalBroken, match="entry 1"):
        await site.do(Action.DEPLOYED, run, by=DEV)
    assert (site.audit.all[-1].reason, site.audit.all[-1].ending) == ("journal-broken", Ending.SERIOUS)
    assert site.serving() == "1.0.0"


# -- back


async def test_a_rollback_brings_back_what_was_there_before_and_withdraws_the_other(site):
    first = await site.deployed("1.1.0")
    second = await site.deployed("1.2.0")
    assert site.serving() == "1.2.0"
    done = await site.do(Action.ROLLED_BACK, by=DEV, why="alarms on ward 3")
    assert (done.entry.run_id, done.entry.replaces, site.serving()) == (second.run_id, first.run_id, "1.1.0")
    assert await site.why_not(Action.DEPLOYED, second, by=DEV) is Reason.WRONG_STAGE
    await site.do(Action.APPROVED, second, by=GRACE, why="it was the ward", despite=True)
    await site.do(Action.DEPLOYED, second, by=DEV)
    assert site.serving() == "1.2.0"


async def test_a_champion_is_withdrawn_even_if_what_is_to_come_back_got_lost(site):
    first, second = await site.deployed("1.1.0"), await site.deployed("1.2.0")
    shutil.rmtree(site.runs / "hematocrit" / first.run_id)
    done = await site.do(Action.ROLLED_BACK, by=DEV, why="alarms on ward 3")
    assert done.note.startswith("what is to come back is not in place")
    assert (await site.standing()).shown == {first.bundle_sha256}
    assert site.serving() == "1.2.0"
    site.shelf.take(site.trained_in / first.run_id)
    await site.do(Action.DEPLOYED, first, by=DEV)
    assert site.serving() == "1.1.0"
    assert (await site.standing()).runs[second.run_id].stage == "rolled-back"


async def test_the_first_deployment_cannot_be_rolled_back(site):
    await site.deployed()
    reason = await site.why_not(Action.ROLLED_BACK, by=DEV, why="bad")
    assert (reason, site.serving()) == (Reason.NOTHING_TO_GO_BACK_TO, "1.1.0")


# -- the edge


async def test_a_run_for_the_edge_is_exported_and_what_serves_stays(site, tmp_path):
    run = await site.approved(deploy_type=DeployType.EDGE)
    wish = Wish(action=Action.EXPORTED, run_id=run.run_id)
    to = tmp_path / "exported"
    done = await site.registry.do(wish, model_id="hematocrit", by=DEV, call=CALL, to=str(to))
    assert (done.entry.action, site.serving()) == (Action.EXPORTED, "1.0.0")
    assert (await site.standing()).champion == run.run_id
    assert bundles.sha256_hex((to / bundles.MANIFEST_FILE).read_bytes()) == run.bundle_sha256
    assert len(json.loads((to / TREES_FILE).read_text())["trees"]) == 1
    with pytest.raises(RegistryRefused, match="not there yet"):
        await site.registry.do(wish, model_id="hematocrit", by=DEV, call=CALL, to=str(to))


async def test_a_run_for_the_edge_is_not_deployed_here(site):
    run = await site.approved(deploy_type=DeployType.EDGE)
    assert await site.why_not(Action.DEPLOYED, run, by=DEV) is Reason.WRONG_DEPLOY_TYPE


# -- opened


async def test_the_app_may_ask_for_a_run_and_so_may_a_developer(site):
    entry = await site.registry.open_by_itself("hematocrit", why="drift in labs", call=CALL)
    assert (entry.who, entry.role, entry.action) == ("timer", "app", Action.OPENED)
    await site.do(Action.OPENED, by=DEV, why="every quarter")
    assert (await site.standing()).opened == 2
    assert await site.why_not(Action.OPENED, by=VIC) is Reason.NOT_YOUR_ROLE


# -- the shelf


def test_a_run_is_laid_on_the_shelf_without_its_rows(site):
    run = site.trained()
    snapshot = site.trained_in / run.run_id / "snapshot"
    snapshot.mkdir()
    (snapshot / "rows.parquet").write_bytes(b"patients")
    site.shelf.take(site.trained_in / run.run_id)
    at = site.runs / "hematocrit" / run.run_id
    assert read_run(at) == run
    assert sorted(path.name for path in at.iterdir()) == ["bundle", "run.json", "run.sig"]
    assert [path.name for path in at.parent.iterdir()] == [run.run_id]


def test_a_later_signature_and_comparison_are_taken_and_nothing_else(site):
    run = site.trained(signed=False)
    folder = site.trained_in / run.run_id
    site.shelf.take(folder)
    (folder / "bundle" / "manifest.sig").write_bytes(b"later")
    (folder / "comparison.json").write_bytes(b"later")
    site.shelf.take(folder)
    at = site.runs / "hematocrit" / run.run_id
    assert ((at / "bundle" / "manifest.sig").read_bytes(), (at / "comparison.json").read_bytes()) == (b"later",) * 2
    (folder / RUN_FILE).write_bytes((folder / RUN_FILE).read_bytes().replace(b'"ada"', b'"eve"'))
    with pytest.raises(RegistryRefused, match=r"expected the same run\.json"):
        site.shelf.take(folder)


@pytest.mark.parametrize("run_id", ["../../bundles", "", "hematocrit-000000000000", ".."])
async def test_what_is_no_run_is_not_looked_for_elsewhere(site, run_id):
    with pytest.raises(RegistryRefused) as raised:
        await site.shelf.run("hematocrit", run_id)
    assert raised.value.reason is Reason.UNKNOWN_RUN


async def test_a_run_that_lies_under_another_name_is_refused(site):
    run = site.trained()
    site.shelf.take(site.trained_in / run.run_id)
    at = site.runs / "hematocrit"
    (at / run.run_id).rename(at / "hematocrit-0123456789ab")
    with pytest.raises(RegistryRefused, match=r"its own run\.json"):
        await site.shelf.run("hematocrit", "hematocrit-0123456789ab")


# -- while requests run


async def test_versions_change_under_load_without_a_failed_request_and_a_rollback_takes_under_5_seconds(
    site, clock, services_of, request_of, fetched_of, lab_of
):
    """Fifty requests are under way at each change; the clock is ours, so that the seconds are the app's own waiting."""
    await site.deployed("1.1.0")
    models = BundleFolder(site.bundles, clock=clock, beside=lambda work: work(), trusted_keys=(PUBLIC,))
    released = asyncio.Event()

    class Source:
        async def fetch(self, *_, **__):
            await released.wait()
            return fetched_of(lab_of())

    services = services_of(store=site.store, models=models, source=Source())
    approvals = Approvals(site.store, clock=clock)
    count = 0

    def ask(number=50):
        nonlocal count
        count += number
        orders = range(count - number, count)
        return [asyncio.ensure_future(infer(request_of(order_id=f"o{each}"), services)) for each in orders]

    async def begun(asked):
        for _ in range(10):
            await asyncio.sleep(0)
        return asked

    asked = [*await begun(ask())]
    second = await site.deployed("1.2.0")
    clock.pass_time(LOOKS_AGAIN_S)
    asked += await begun(ask())
    assert await approvals.is_shown("hematocrit", second.bundle_sha256)
    wanted_at = clock.monotonic()
    await site.do(Action.ROLLED_BACK, by=DEV, why="alarms on ward 3")
    clock.pass_time(LOOKS_AGAIN_S)
    # The look that notices is made by a request, which may itself still be the old one's.
    asked += await begun(ask(1))
    last = await begun(ask())
    assert clock.monotonic() - wanted_at < WITHIN_S
    assert not await approvals.is_shown("hematocrit", second.bundle_sha256)
    released.set()
    packets = [answer.packet for answer in await asyncio.gather(*asked, *last)]
    assert all(isinstance(packet.outcome, Scored) for packet in packets)
    versions = [packet.model.version for packet in packets]
    assert set(versions[:50]) == {"1.1.0"}
    assert set(versions[51:100]) == {"1.2.0"}
    assert set(versions[101:]) == {"1.1.0"}


async def test_the_way_back_is_in_memory_and_loads_nothing(site, clock):
    await site.deployed("1.1.0")
    loaded = []

    def refused(digests):
        loaded.append(len(digests))
        return {}

    models = BundleFolder(
        site.bundles, clock=clock, beside=lambda work: work(), trusted_keys=(PUBLIC,), refused=refused
    )
    first = models.bundle("hematocrit")
    await site.deployed("1.2.0")
    for _ in range(2):
        clock.pass_time(LOOKS_AGAIN_S)
        models.bundle("hematocrit")
    assert models.bundle("hematocrit").manifest.version == "1.2.0"
    await site.do(Action.ROLLED_BACK, by=DEV, why="bad")
    before = len(loaded)
    clock.pass_time(LOOKS_AGAIN_S)
    models.bundle("hematocrit")
    assert models.bundle("hematocrit") is first
    assert sum(loaded[before:]) == 0


def test_a_marker_that_names_no_digest_makes_the_model_unavailable(site):
    (site.bundles / "hematocrit" / DEPLOYED_FILE).write_text('{"bundle_sha256": "../../etc", "run_id": "x"}')
    models = BundleFolder(site.bundles)
    assert "deployed.json" in models.deployed()["hematocrit"]


def test_heads_read_back_from_an_audit_record():
    assert head_in("12:ab") == Head(number=12, sha256="ab")
    assert [head_in(text) for text in ("", ":", "x:ab", "12:", "-1:ab")] == [None] * 5
