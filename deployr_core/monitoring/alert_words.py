"""What each rule means, what to do about it, and which panel explains it; shown with every alert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """``title``: what has happened, in a few words. ``panel``: the anchor in the dashboard; None: the page of all."""

    title: str
    means: str
    do: str
    panel: str | None


WORDS: Mapping[str, Words] = {
    "silence": Words(
        title="Nobody has asked",
        means="No request has come for longer than this deployment's own hours of the week allow, or than declared.",
        do="Ask for a score by hand. If that works, the caller is down or switched over: call who runs the EMR.",
        panel="volume",
    ),
    "failures": Words(
        title="Many requests fail",
        means="The share of failed requests is far above what it was in the weeks before.",
        do="Look at the reasons; docs/operating.md says what each needs. Clinicians see no score meanwhile.",
        panel="reasons",
    ),
    "failure-trend": Words(
        title="More requests fail than before",
        means="The daily share of failed requests has risen a little, and stays up.",
        do="Look which reason became more frequent, and since when: a certificate, a limit, one kind of patient.",
        panel="reasons",
    ),
    "abstentions": Words(
        title="Many requests get no score",
        means="The model abstains far more often than in the weeks before: records are withheld or hold too little.",
        do="Look at the reasons and at coverage: a mapping, a scope or a code system may have changed.",
        panel="reasons",
    ),
    "abstention-trend": Words(
        title="More requests get no score than before",
        means="The daily share of abstentions has risen a little, and stays up.",
        do="Look which reason became more frequent, and since when.",
        panel="reasons",
    ),
    "latency": Words(
        title="Answers are slow",
        means="More than 1 in 20 answers that somebody waits for take most of the deadline; beyond it they get none.",
        do="See which step takes the time: the EMR's searches, the model, or the store.",
        panel="latency",
    ),
    "volume": Words(
        title="Unusually many or few requests",
        means="The last 24 hours differ in number from such hours of the weeks before.",
        do="Find out whether a unit, a caller or a trigger was added, removed, or asks twice.",
        panel="volume",
    ),
    "deliveries-given-up": Words(
        title="Scores were given up",
        means="The EMR refused scores, so that they will not be sent again by themselves.",
        do="`deployr deliveries list` says why. Once that is mended: `deployr deliveries retry`.",
        panel=None,
    ),
    "deliveries-waiting": Words(
        title="Scores wait to be sent",
        means="A score has waited for longer than it should; it expires unless it is sent.",
        do="Is the relay's timer running, and does the EMR take writes? `deployr deliveries list --state pending`.",
        panel=None,
    ),
    "spool": Words(
        title="Packets wait outside of the store",
        means="The store was or is down; packets wait on this machine's disk, or could not be kept at all.",
        do="`/api/health/ready` says how the store is. Do not take this machine away: what waits is on it.",
        panel=None,
    ),
    "store": Words(
        title="The store does not answer",
        means="Nothing can be stored, so nothing new is shown unless the site allows it from the spool.",
        do="docs/store.md says what to look at: reachability, credentials, throttling, room.",
        panel=None,
    ),
    "evaluator": Words(
        title="Nobody is watching",
        means="One of the two places that evaluate alerts has not run: the app's timer, or `deployr alerts run`.",
        do="Is the app up, and the nightly job? Until then half of the rules say nothing.",
        panel=None,
    ),
    "coverage": Words(
        title="A kind of data is missing",
        means="Fewer packets than in the reference period have anything of this group of features.",
        do="Compare with the EMR: were codes, a scope or an interface changed? Scores rest on less than intended.",
        panel="presence",
    ),
    "labels-overdue": Words(
        title="Labels do not come",
        means="Outcomes could be known by now and are not, so performance is measured on too few.",
        do="`deployr labels status`, then `deployr labels run`; look at the label timers.",
        panel="funnel",
    ),
    "auroc": Words(
        title="The model tells patients apart worse",
        means="The interval of the AUROC in service lies wholly below that of held-out rows, or below the bar.",
        do="Look at drift and subgroups, and at label selection; then follow the monitoring plan.",
        panel="performance",
    ),
    "calibration": Words(
        title="Scores are too high or too low",
        means="The mean score and the share of outcomes differ by more than the interval and the limit allow.",
        do="Look at the calibration curve and the prevalence; recalibrate before a threshold is trusted.",
        panel="calibration",
    ),
    "drift": Words(
        title="What goes in has changed",
        means="Variables differ from the reference period by more than chance, and enough to move scores.",
        do="Find out what changed in the EMR or the patients, before labels show what it does.",
        panel="feature-drift",
    ),
    "sample-ratio": Words(
        title="The trial's arms are not as drawn",
        means="The arms' sizes do not fit the chances that they were drawn with: assignment or recording is broken.",
        do="Trust no effect of this trial; find which units are missing, and pause enrolment.",
        panel="trial",
    ),
    "overrides": Words(
        title="Advisories are overridden",
        means="Nearly all advisories that are shown are overridden.",
        do="Read the reasons given; raise the threshold or change who sees it, before people stop reading.",
        panel="response",
    ),
    "burden": Words(
        title="More advisories than planned",
        means="Clinicians get more advisories a day than declared, or than in the reference period.",
        do="Look at threshold, drift and volume; suppression may be too short.",
        panel="burden",
    ),
}
