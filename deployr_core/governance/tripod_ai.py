"""TRIPOD+AI: what a report of a clinical prediction model holds, and where in our papers each item is answered."""

from __future__ import annotations

from deployr_core.governance.profile import Item, Profile

_ROWS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "1",
        "Title",
        "Says that a prediction model is developed or evaluated, for whom, and of which outcome",
        ("title",),
    ),
    ("2", "Abstract", "Answers the abstract's own checklist", ("abstract",)),
    ("3a", "Background", "Healthcare context, why the model was made, existing models", ("background",)),
    (
        "3b",
        "Background",
        "Target population, purpose in the care pathway, users",
        ("population", "intended_use", "users"),
    ),
    ("3c", "Background", "Known health inequalities between groups", ("inequalities",)),
    ("4", "Objectives", "Whether this is development, validation, or both", ("summary",)),
    (
        "5a",
        "Data",
        "Sources for development and evaluation, why these, whom they represent",
        ("data_source", "relevance"),
    ),
    ("5b", "Data", "Dates of the data", ("dates",)),
    ("6a", "Participants", "Setting, with number and place of centres", ("setting",)),
    ("6b", "Participants", "Eligibility", ("eligibility",)),
    ("6c", "Participants", "Treatments, and how they were handled", ("treatments",)),
    ("7", "Data preparation", "Pre-processing and quality checks, and whether alike across groups", ("data_quality",)),
    ("8a", "Outcome", "Definition, time horizon, why, and whether alike across groups", ("outcome", "outcome_choice")),
    ("8b", "Outcome", "Who assessed it, where that takes judgement", ("blinding",)),
    ("8c", "Outcome", "Blinding of the assessment", ("blinding",)),
    ("9a", "Predictors", "How the first predictors were chosen", ("predictor_choice",)),
    ("9b", "Predictors", "Definition of all predictors, and when they are measured", ("features", "index_time")),
    ("9c", "Predictors", "Who assessed them, where that takes judgement", ("blinding",)),
    ("10", "Sample size", "How it was arrived at, and why it is enough", ("training_set", "test_set", "sample_size")),
    ("11", "Missing data", "How missing data were handled", ("absent_data",)),
    ("12a", "Analytical methods", "How the data were used and partitioned", ("splits",)),
    ("12b", "Analytical methods", "How predictors were handled", ("features", "absent_data")),
    (
        "12c",
        "Analytical methods",
        "Type of model, building steps, tuning, internal validation",
        ("estimator", "parameters", "splits"),
    ),
    ("12d", "Analytical methods", "Heterogeneity across clusters such as hospitals", ("clusters",)),
    ("12e", "Analytical methods", "Measures of performance", ("held_out_validity", "performance_goal")),
    ("12f", "Analytical methods", "Model updating that came of the evaluation", ("updates",)),
    ("12g", "Analytical methods", "How predictions are calculated", ("estimator", "digests")),
    ("13", "Class imbalance", "Methods for imbalance, and recalibration", ("parameters",)),
    ("14", "Fairness", "Approaches to fairness, and why", ("fairness_approach",)),
    ("15", "Model output", "What the output is, and how thresholds were found", ("output", "threshold_choice")),
    ("16", "Training versus evaluation", "Differences between development and evaluation data", ("site_differences",)),
    ("17", "Ethical approval", "Committee, consent or waiver", ("ethics", "consent")),
    ("18a", "Open science", "Funding, and the role of funders", ("funding",)),
    ("18b", "Open science", "Conflicts of interest", ("conflicts",)),
    ("18c", "Open science", "Where the protocol is, or that there is none", ("protocol",)),
    ("18d", "Open science", "Registration, or that there is none", ("registration",)),
    ("18e", "Open science", "Whether the data can be had", ("data_sharing",)),
    ("18f", "Open science", "Whether the analytical code can be had", ("code_sharing", "software")),
    ("19", "Patient and public involvement", "How, or that there was none", ("involvement",)),
    ("20a", "Participants", "Flow of participants, with and without the outcome", ("training_set", "test_set")),
    ("20b", "Participants", "Characteristics, by group", ("training_demographics", "held_out_groups")),
    ("20c", "Participants", "Comparison with the development data", ("site_differences",)),
    ("21", "Model development", "Participants and events in each analysis", ("training_set", "test_set")),
    (
        "22",
        "Model specification",
        "The full model, so that others can use it, and terms of use",
        ("digests", "code_sharing"),
    ),
    ("23a", "Model performance", "Performance with intervals, by group", ("held_out_validity", "held_out_fairness")),
    ("23b", "Model performance", "Heterogeneity across clusters", ("clusters",)),
    ("24", "Model updating", "Results of updating", ("updates",)),
    ("25", "Interpretation", "Main results, fairness included", ("interpretation",)),
    ("26", "Limitations", "Limitations, and what they do to bias and generalizability", ("risks", "biases")),
    ("27a", "Usability", "How poor or absent input data are to be handled", ("requirements", "absent_data")),
    ("27b", "Usability", "Whether users interact with input or model, and what they have to know", ("user_skill",)),
    ("27c", "Usability", "Next steps for research", ("next_steps",)),
)

TRIPOD_AI = Profile(
    name="tripod-ai",
    title="Reporting a clinical prediction model (TRIPOD+AI)",
    source="Collins et al. (2024), BMJ 385:e078378, doi:10.1136/bmj-2023-078378",
    wording="Numbers and topics of the published checklist; what each asks is shortened in our words. Fill in the"
    " official form from this.",
    items=tuple(
        Item(number=number, section=section, asked=asked, facts=facts) for number, section, asked, facts in _ROWS
    ),
)
