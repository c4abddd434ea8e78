"""The Python client and the OpenAPI document agree: operations, parameters, bodies, answers."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from app.client import (
    Client,
    corpus_shapes,
    evaluation_shapes,
    job_presets,
    job_shapes,
    log_shapes,
    notice_shapes,
    people_shapes,
    shapes,
    synthetic_shapes,
    tokenizer_shapes,
)
from app.client.accounts import create_token
from app.client.conversations import ConversationFields
from app.client.deployments import DeploymentOptions
from app.client.lineage import LineageInfo, LineageItemInfo, LineageLinkInfo
from app.client.model_endpoints import EndpointFields
from app.client.nodes import (
    GpuInfo,
    GpuUsageInfo,
    HealthInfo,
    JobUseInfo,
    JoinTokenInfo,
    NewJoinTokenInfo,
    NodeConfigurationInfo,
    NodeInfo,
    PartInfo,
    TelemetryInfo,
    UserUseInfo,
    join,
)
from app.client.queue import QueuedJobInfo
from app.client.record_generations import GenerationFields
from app.client.shapes import FileInfo, Shape
from app.client.sharing import SharingInfo
from app.client.trash import TrashedInfo
from app.main import create_app
from tests import api_document

AREAS = {
    *(
        "corpora",
        "tokenizers",
        "models",
        "jobs",
        "hyperparameter-searches",
        "nodes",
        "checkpoints",
        "tasks",
        "playground",
    ),
    *(
        "deployments",
        "conversations",
        "people",
        "hyperparameter-searches",
        "synthetic data",
        "notices",
        "trash",
        "sharing",
    ),
    "lineage",
}
# Operations of these areas that the client does without: the former addresses of tasks, and samples of steps, which
# pages show.
LEFT_OUT = re.compile(r"/api/v1/(checkpoint-tasks|works)\b|/api/v1/jobs/(\{job_id\}/batches|samples)")
FORMER_PARAMETERS = {"checkpoint"}  # of GET /api/v1/tasks: deprecated
STREAM = {"generate": b"event: done\ndata: %s\n\n", "stream_job": b"id: 1\nevent: job\ndata: %s\n\n"}

GGUF_SHA256 = hashlib.sha256(b"GGUF").hexdigest()

DEPLOYMENT: DeploymentOptions = {
    "num_replicas": 2,
    "nodes": ["ada"],
    "access": "users",
    "users": ["Bob"],
    "requests_per_minute": 60,
}
CONVERSATION: ConversationFields = {
    "title": "Metals",
    "system_prompt": "Be brief.",
    "columns": [{"model_id": "k", "leaf_id": None}],
}

ENDPOINT: EndpointFields = {
    "name": "teacher",
    "base_url": "https://example.com/v1",
    "model": "large",
    "api_key": "key",
    "input_price": 0.5,
    "output_price": 1.5,
}

GENERATION: GenerationFields = {
    "model": "helpdesk",
    "endpoint": None,
    "kind": "chat",
    "template": "{document}",
    "num_documents": 2,
    "max_characters": 100,
    "seed": 1,
    "records_per_document": 2,
    "num_turns": 2,
    "temperature": 0.5,
    "max_tokens": 100,
    "max_total_tokens": 1000,
    "max_cost": 1.5,
}

SEARCH: dict[str, Any] = {
    "name": "n",
    "spec": {},
    "grid": {"seed": [1, 2]},
    "ranges": {"learning_rate": {"low": 0.001, "high": 0.01, "is_log": True}},
    "num_jobs": 4,
    "seed": 1,
    "early_stopping": True,
    "sampler": "tpe",
    "parallel_jobs": 3,
}

Calls = dict[str, Callable[[Client, Path], Any]]
CALLS: Calls = {
    "get_me": lambda client, _file: client.me(),
    "upload_corpus": lambda client, file: client.corpora.upload(file, name="n", encoding="big5", kind="chat"),
    "list_corpora": lambda client, _file: next(
        client.corpora.list(limit=3, search="g", tag="t", kind="text", state="ready", owner="own", order="name")
    ),
    "get_corpus": lambda client, _file: client.corpora.get("c"),
    "download_corpus": lambda client, _file: client.corpora.create_from_url(
        "https://data.example.org/a.txt", filename="b.txt", name="B", encoding="big5", kind="chat"
    ),
    "create_corpus": lambda client, _file: client.corpora.create_from_uploads(
        ["u"], name="n", encoding="big5", kind="chat"
    ),
    "list_corpus_files": lambda client, _file: next(client.corpora.files("c", limit=3)),
    "list_corpus_versions": lambda client, _file: next(client.corpora.versions("c")),
    "create_corpus_version": lambda client, _file: client.corpora.change("c", uploads=["u"], remove=["a.txt"]),
    "list_corpus_changes": lambda client, _file: client.corpora.changes("c", since="b"),
    "list_documents": lambda client, _file: next(client.corpora.documents("c", limit=3)),
    "parse_corpus": lambda client, _file: client.corpora.parse(
        "c", encoding="big5", skip_bad=True, bad_bytes="omit", kind="chat", filename="a.txt", group_column="author"
    ),
    "count_corpus": lambda client, _file: client.corpora.count("c", "t"),
    "list_corpus_statistics": lambda client, _file: next(client.corpora.statistics("c")),
    "search_corpus": lambda client, _file: next(client.corpora.search("c", "x", limit=3)),
    "clean_corpus": lambda client, _file: client.corpora.clean("c", [{"name": "fix_unicode"}]),
    "preview_cleaning": lambda client, _file: client.corpora.preview_cleaning("c", [{"name": "fix_unicode"}], 9),
    "get_cleaning": lambda client, _file: client.corpora.cleaning("c"),
    "restore_corpus": lambda client, _file: client.corpora.restore("c"),
    "change_corpora": lambda client, _file: client.corpora.change_many(["c"], "tag", "t"),
    "change_tokenizers": lambda client, _file: client.tokenizers.change_many(["t"], "tag", "t"),
    "change_models": lambda client, _file: client.models.change_many(["m"], "tag", "t"),
    "change_jobs": lambda client, _file: client.jobs.change_many(["j"], "tag", "t"),
    "change_checkpoints": lambda client, _file: client.checkpoints.change_many(["c"], "pin"),
    "change_corpus": lambda client, _file: client.corpora.label("c", name="n", tags=["t"], notes="o"),
    "delete_corpus": lambda client, _file: client.corpora.delete("c"),
    "list_tokenizers": lambda client, _file: next(
        client.tokenizers.list(limit=3, search="g", tag="t", source="job", state="ready", owner="own", order="name")
    ),
    "get_tokenizer": lambda client, _file: client.tokenizers.get("t"),
    "train_tokenizer": lambda client, _file: client.tokenizers.train(
        ["c"], name="n", vocab_size=512, special_tokens=("<|x|>",), sample_bytes=4096
    ),
    "import_job": lambda client, file: client.jobs.import_archive(file),
    "get_origin": lambda client, _file: client.jobs.origin("j"),
    "import_tokenizer": lambda client, file: client.tokenizers.import_file(file, name="n", end_of_text="</s>"),
    "compare_tokenizers": lambda client, _file: client.tokenizers.compare("text", ["t"]),
    "change_tokenizer": lambda client, _file: client.tokenizers.label("t", name="n", tags=["t"], notes="o"),
    "delete_tokenizer": lambda client, _file: client.tokenizers.delete("t"),
    "create_model": lambda client, _file: client.models.create(name="n", reference="a/b"),
    "upload_file": lambda client, file: client.models.upload_file("m", file),
    "import_model": lambda client, _file: client.models.start_import("m"),
    "list_models": lambda client, _file: next(
        client.models.list(limit=3, search="g", tag="t", source="hub", state="ready", owner="own", order="name")
    ),
    "get_model": lambda client, _file: client.models.get("m"),
    "change_model": lambda client, _file: client.models.label("m", name="n", tags=["t"], notes="o"),
    "delete_model": lambda client, _file: client.models.delete("m"),
    "submit_job": lambda client, _file: client.jobs.submit({"recipe": "tiny"}),
    "plan_job": lambda client, _file: client.jobs.plan({"recipe": "tiny"}),
    "tokenize_corpora": lambda client, _file: client.jobs.tokenize({"recipe": "tiny"}),
    "propose_job": lambda client, _file: client.jobs.propose(["c"], 600),
    "propose_curve": lambda client, _file: client.jobs.propose_curve(["c"], [600]),
    "preview_template": lambda client, _file: client.jobs.preview_template(
        "chatml", base_model="m", messages=[{"role": "user", "content": "Hi"}]
    ),
    "list_everyones_jobs": lambda client, _file: next(client.jobs.everyones("s", is_open=True, limit=3)),
    "cancel_everyones_job": lambda client, _file: client.jobs.cancel_everyones("j"),
    "list_jobs": lambda client, _file: next(
        client.jobs.list(["running"], limit=3, search="s", tag="t", owner="own", order="name")
    ),
    "create_search": lambda client, _file: client.jobs.search(SEARCH),
    "list_searches": lambda client, _file: next(client.jobs.searches(limit=3)),
    "get_search_importance": lambda client, _file: client.jobs.search_importance("s"),
    "get_search": lambda client, _file: client.jobs.get_search("s"),
    "cancel_search": lambda client, _file: client.jobs.cancel_search("s"),
    "compare_jobs": lambda client, _file: client.jobs.compare(["j", "k"]),
    "change_job": lambda client, _file: client.jobs.change(
        "j", name="n", tags=["t"], notes="m", is_notified=False, evaluation_corpora=["c"]
    ),
    "list_forwardings": lambda client, _file: next(client.jobs.forwardings("j")),
    "change_forwardings": lambda client, _file: client.jobs.forward("j", {"mlflow": True}),
    "get_job": lambda client, _file: client.jobs.get("j"),
    "pause_job": lambda client, _file: client.jobs.pause("j"),
    "resume_job": lambda client, _file: client.jobs.resume("j"),
    "cancel_job": lambda client, _file: client.jobs.cancel("j"),
    "delete_job": lambda client, _file: client.jobs.delete("j"),
    "get_history": lambda client, _file: next(client.jobs.history("j")),
    "list_attempts": lambda client, _file: next(client.jobs.attempts("j")),
    "get_samples": lambda client, _file: next(client.jobs.samples("j")),
    "get_metrics": lambda client, _file: client.jobs.metrics("j", ["loss"], start=1, end=9, points=20, seconds=True),
    "get_lineage": lambda client, _file: client.lineage.get("c"),
    "get_forecast": lambda client, _file: client.jobs.forecast("j"),
    "download_metrics": lambda client, file: client.jobs.download_metrics("j", file.with_suffix(".csv")),
    "download_metrics_parquet": lambda client, file: client.jobs.download_metrics(
        "j", file.with_suffix(".parquet"), "parquet"
    ),
    "download_metrics_tensorboard": lambda client, file: client.jobs.download_metrics(
        "j", file.with_name("tfevents"), "tensorboard"
    ),
    "get_baselines": lambda client, _file: client.jobs.baselines("j"),
    "search_log": lambda client, _file: next(client.jobs.log_lines("j", "nan", "error", 3, 9)),
    "get_log": lambda client, _file: client.jobs.log("j", 3),
    "stream_job": lambda client, _file: next(client.jobs.events("j", after="1.2")),
    "list_recipes": lambda client, _file: next(client.recipes()),
    "list_nodes": lambda client, _file: next(client.nodes()),
    "remove_node": lambda client, _file: client.remove_node("gpu 2"),
    "drain_node": lambda client, _file: client.drain_node("gpu 2"),
    "resume_node": lambda client, _file: client.resume_node("gpu 2"),
    "list_machine_use": lambda client, _file: next(client.usage(limit=3)),
    "read_health": lambda client, _file: client.health(),
    "delete_unneeded_cache": lambda client, _file: client.delete_unneeded_cache(),
    "list_join_tokens": lambda client, _file: next(client.join_tokens.list(limit=3)),
    "create_join_token": lambda client, _file: client.join_tokens.create(5),
    "revoke_join_token": lambda client, _file: client.join_tokens.revoke("t"),
    "list_checkpoints": lambda client, _file: next(
        client.checkpoints.list("j", limit=3, search="g", tag="t", pinned=True, owner="shared", order="name")
    ),
    "get_checkpoint": lambda client, _file: client.checkpoints.get("k"),
    "change_checkpoint": lambda client, _file: client.checkpoints.label("k", name="x", tags=["a"], notes="n"),
    "pin_checkpoint": lambda client, _file: client.checkpoints.pin("k"),
    "unpin_checkpoint": lambda client, _file: client.checkpoints.unpin("k"),
    "delete_checkpoint": lambda client, _file: client.checkpoints.delete("k"),
    "export_checkpoint": lambda client, _file: client.exports.start(
        "k", format="gguf", quantization="q8_0", max_shard_bytes=10**7, license="mit"
    ),
    "evaluate_checkpoint": lambda client, _file: client.evaluations.start("k", ["c"], limit=5, num_fewshot=1),
    "list_comparisons": lambda client, _file: next(client.evaluations.compare("g", limit=3)),
    "list_tasks": lambda client, _file: next(client.tasks.list("k", ["export"], limit=3)),
    "get_task": lambda client, _file: client.tasks.get("t"),
    "cancel_task": lambda client, _file: client.tasks.cancel("t"),
    "delete_task": lambda client, _file: client.tasks.delete("t"),
    "download_file": lambda client, file: client.exports.download_file(
        "t",
        FileInfo(name="a.gguf", size=4, sha256=GGUF_SHA256),
        file.parent,
    ),
    "generate": lambda client, _file: client.generate(
        "k",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=3,
        temperature=0,
        top_p=1,
        top_k=0,
        min_p=0,
        repetition_penalty=1,
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={7: 1.5},
        top_logprobs=1,
        seed=7,
        stop=["."],
        prefill="Well",
    ),
    "list_deployments": lambda client, _file: next(client.deployments.list(limit=3)),
    "create_deployment": lambda client, _file: client.deployments.create("scribe", "k", **DEPLOYMENT),
    "get_deployment": lambda client, _file: client.deployments.get("d"),
    "change_deployment": lambda client, _file: client.deployments.change("d", "k", **DEPLOYMENT),
    "delete_deployment": lambda client, _file: client.deployments.delete("d"),
    "get_usage": lambda client, _file: next(client.deployments.usage("d", hours=3)),
    "list_conversations": lambda client, _file: next(client.conversations.list("lead", limit=3)),
    "create_conversation": lambda client, _file: client.conversations.create(**CONVERSATION),
    "get_conversation": lambda client, _file: client.conversations.get("t"),
    "change_conversation": lambda client, _file: client.conversations.change("t", **CONVERSATION),
    "delete_conversation": lambda client, _file: client.conversations.delete("t"),
    "add_message": lambda client, _file: client.conversations.add_message(
        "t",
        "assistant",
        "Heat.",
        parent_id="m",
        model_id="k",
        model_name="Model",
        settings={"temperature": 1},
        seed=1,
        finish_reason="stop",
        num_tokens=2,
        tokens_per_second=2.5,
        tokens="[]",
    ),
    "delete_message": lambda client, _file: client.conversations.delete_message("t", "m"),
    "get_training_record": lambda client, _file: client.conversations.record("t", "m"),
    "list_users": lambda client, _file: next(
        client.people.list(limit=3, search="g", role="member", access="enabled", order="name")
    ),
    "get_user": lambda client, _file: client.people.get("u"),
    "create_user": lambda client, _file: client.people.create("Carol", "four unrelated words", "viewer"),
    "set_quotas": lambda client, _file: client.people.set_quotas("u", disk_bytes=1, running_jobs=2, gpu_hours=3.5),
    "get_own_usage": lambda client, _file: client.people.usage(),
    "get_usage_of_user": lambda client, _file: client.people.usage("u"),
    "change_user": lambda client, _file: client.people.change_role("u", "admin"),
    "disable_user": lambda client, _file: client.people.disable("u"),
    "enable_user": lambda client, _file: client.people.enable("u"),
    "create_password_reset": lambda client, _file: client.people.create_reset_link("u"),
    "remove_user": lambda client, _file: client.people.remove("u", "transfer"),
    "list_audit_log": lambda client, _file: next(
        client.people.audit_log(person="Bob", action="login", search="s", limit=3)
    ),
    "list_invitations": lambda client, _file: next(client.people.invitations(limit=3)),
    "create_invitation": lambda client, _file: client.people.invite("viewer", days=2),
    "revoke_invitation": lambda client, _file: client.people.revoke_invitation("i"),
    "share_conversation": lambda client, _file: client.conversations.share("t"),
    "list_record_generations": lambda client, _file: next(client.record_generations.list(limit=3)),
    "create_record_generation": lambda client, _file: client.record_generations.create("c", **GENERATION),
    "get_record_generation": lambda client, _file: client.record_generations.get("g"),
    "resume_record_generation": lambda client, _file: client.record_generations.resume("g", max_cost=1.5),
    "delete_record_generation": lambda client, _file: client.record_generations.delete("g"),
    "list_generated_records": lambda client, _file: next(
        client.record_generations.records("g", state="draft", duplicates=True, limit=3)
    ),
    "change_generated_record": lambda client, _file: client.record_generations.change(
        "g", "r", state="accepted", cells=["a", "b"]
    ),
    "review_generated_records": lambda client, _file: client.record_generations.review("g", "accepted", ids=["r"]),
    "make_corpus_of_records": lambda client, _file: client.record_generations.make_corpus("g", name="n"),
    "get_synthesis": lambda client, _file: client.record_generations.synthesis("c"),
    "list_model_endpoints": lambda client, _file: next(client.model_endpoints.list(limit=3)),
    "create_model_endpoint": lambda client, _file: client.model_endpoints.create(**ENDPOINT),
    "get_model_endpoint": lambda client, _file: client.model_endpoints.get("e"),
    "change_model_endpoint": lambda client, _file: client.model_endpoints.change("e", **ENDPOINT),
    "get_queue": lambda client, _file: next(client.queue.list()),
    "move_job": lambda client, _file: client.queue.move("j", before="k"),
    "list_job_presets": lambda client, _file: next(client.job_presets.list(limit=3)),
    "get_job_preset": lambda client, _file: client.job_presets.get("p"),
    "save_job_preset": lambda client, _file: client.job_presets.save("a", {"recipe": "tiny"}, everyone=True),
    "delete_job_preset": lambda client, _file: client.job_presets.delete("p"),
    "list_column_mappings": lambda client, _file: next(client.corpora.mappings(limit=3)),
    "delete_column_mapping": lambda client, _file: client.corpora.delete_mapping("m"),
    "delete_model_endpoint": lambda client, _file: client.model_endpoints.delete("e"),
    "list_notices": lambda client, _file: next(client.notices.list(unread=True, limit=3)),
    "count_unread_notices": lambda client, _file: client.notices.count_unread(),
    "mark_notice_read": lambda client, _file: client.notices.mark_read("n"),
    "mark_notices_read": lambda client, _file: client.notices.mark_all_read(),
    "get_notice_settings": lambda client, _file: client.notices.settings(),
    "change_notice_settings": lambda client, _file: client.notices.change_settings({"job_failed": []}, "en"),
    "set_notice_email": lambda client, _file: client.notices.set_email("a@example.com"),
    "confirm_notice_email": lambda client, _file: client.notices.confirm_email("c"),
    "send_test_email": lambda client, _file: client.notices.send_test_email(),
    "remove_notice_email": lambda client, _file: client.notices.remove_email(),
    "add_notice_service": lambda client, _file: client.notices.add_service("n", "json://example.com"),
    "test_notice_service": lambda client, _file: client.notices.test_service("s"),
    "remove_notice_service": lambda client, _file: client.notices.remove_service("s"),
    "get_sharing": lambda client, _file: client.sharing.get("x"),
    "change_sharing": lambda client, _file: client.sharing.change("x", users=["Bob"], everyone=True),
    "list_trash": lambda client, _file: next(client.trash.list(limit=3)),
    "restore_from_trash": lambda client, _file: client.trash.restore("x"),
    "delete_from_trash": lambda client, _file: client.trash.delete("x"),
    "empty_trash": lambda client, _file: client.trash.empty(),
    "unshare_conversation": lambda client, _file: client.conversations.unshare("t"),
}
# Each shape of the client, and the name of its schema.
SCHEMAS: dict[type[Shape], str] = {
    shapes.UserInfo: "MeAnswer",
    shapes.NewTokenInfo: "NewTokenAnswer",
    shapes.Progress: "CorpusProgress",
    shapes.ParseProblem: "CorpusProblem",
    shapes.EncodingInfo: "EncodingOffer",
    shapes.CorpusColumnInfo: "ColumnAnswer",
    shapes.DatasetInfo: "DatasetAnswer",
    shapes.SkippedFileInfo: "SkippedFileAnswer",
    shapes.MappingInfo: "MappingAnswer",
    shapes.NamedMappingInfo: "NamedMappingAnswer",
    job_presets.JobPresetInfo: "JobPresetAnswer",
    shapes.CorpusInfo: "CorpusAnswer",
    corpus_shapes.CleaningExampleInfo: "CleaningExampleAnswer",
    corpus_shapes.ScoresInfo: "ScoresAnswer",
    corpus_shapes.ScoringModelInfo: "ScoringModelAnswer",
    corpus_shapes.CleaningStepInfo: "CleaningStepAnswer",
    corpus_shapes.CleaningPreviewInfo: "CleaningPreviewAnswer",
    corpus_shapes.CleaningInfo: "CleaningAnswer",
    shapes.DocumentInfo: "DocumentAnswer",
    tokenizer_shapes.TokenizerInfo: "TokenizerAnswer",
    tokenizer_shapes.TokenizerProblemInfo: "TokenizerProblem",
    tokenizer_shapes.CurvePointInfo: "CurvePoint",
    tokenizer_shapes.TokenizerProgressInfo: "TokenizerProgress",
    tokenizer_shapes.TokenizationsInfo: "TokenizationsAnswer",
    tokenizer_shapes.TokenizationInfo: "Tokenization",
    tokenizer_shapes.ComparedTokenInfo: "ComparedToken",
    shapes.ImportProblem: "ModelProblem",
    shapes.UseLimit: "ModelLimit",
    shapes.FileInfo: "ModelFile",
    shapes.ImportProgress: "ModelProgress",
    shapes.BaseModelInfo: "ModelAnswer",
    corpus_shapes.CountedDocumentInfo: "CountedDocument",
    corpus_shapes.LengthCutInfo: "LengthCut",
    corpus_shapes.FrequentTokenInfo: "FrequentToken",
    corpus_shapes.TokenStatisticsInfo: "TokenStatistics",
    corpus_shapes.LanguageCountInfo: "LanguageCount",
    corpus_shapes.SplitPreviewInfo: "SplitPreview",
    corpus_shapes.CorpusStatisticsInfo: "CorpusStatistics",
    corpus_shapes.StatisticsInfo: "StatisticsAnswer",
    corpus_shapes.MatchInfo: "MatchAnswer",
    corpus_shapes.CorpusFileInfo: "CorpusFileAnswer",
    corpus_shapes.ChangesInfo: "ChangesAnswer",
    job_shapes.BestValueInfo: "BestValue",
    job_shapes.ComparedJobInfo: "ComparedJob",
    job_shapes.ComparisonInfo: "JobComparison",
    job_shapes.DifferentFieldInfo: "DifferentField",
    job_shapes.FieldImportanceInfo: "FieldImportance",
    job_shapes.ImportanceInfo: "SearchImportance",
    shapes.ChangedRowInfo: "RowAnswer",
    shapes.ChangedRowsInfo: "RowsAnswer",
    job_shapes.SearchInfo: "HyperparameterSearchAnswer",
    job_shapes.PhaseInfo: "PhaseProgress",
    job_shapes.JobProgressInfo: "ProgressAnswer",
    job_shapes.WaitInfo: "WaitAnswer",
    job_shapes.BlockingJobInfo: "BlockingJob",
    QueuedJobInfo: "QueuedJobAnswer",
    job_shapes.ActionInfo: "ActionAnswer",
    job_shapes.FailureInfo: "FailureAnswer",
    job_shapes.NoticeInfo: "NoticeAnswer",
    job_shapes.SetbackInfo: "SetbackAnswer",
    job_shapes.VerdictInfo: "VerdictAnswer",
    job_shapes.JobInfo: "JobAnswer",
    job_shapes.ForwardingInfo: "ForwardingAnswer",
    job_shapes.ForwardingsInfo: "Listing_ForwardingAnswer_",
    job_shapes.EveryonesJobInfo: "EveryonesJob",
    job_shapes.FigureInfo: "FigureAnswer",
    job_shapes.CorpusShareInfo: "CorpusShareAnswer",
    job_shapes.PlanInfo: "PlanAnswer",
    job_shapes.DataChecksInfo: "DataChecks",
    job_shapes.DataCheckInfo: "DataCheck",
    job_shapes.ProposalInfo: "ProposeAnswer",
    job_shapes.ProposalPointInfo: "ProposalPoint",
    job_shapes.ProposalCurveInfo: "ProposalCurveAnswer",
    job_shapes.PreviewPartInfo: "PreviewPart",
    job_shapes.TemplatePreviewInfo: "PreviewAnswer",
    job_shapes.AttemptInfo: "AttemptAnswer",
    job_shapes.HistoryInfo: "HistoryEntry",
    job_shapes.SampleInfo: "SampleAnswer",
    job_shapes.CurveInfo: "CurveAnswer",
    job_shapes.MetricsInfo: "MetricsAnswer",
    job_shapes.ForecastInfo: "LossForecast",
    LineageInfo: "LineageAnswer",
    LineageItemInfo: "LineageItem",
    LineageLinkInfo: "LineageLink",
    job_shapes.OriginInfo: "OriginAnswer",
    job_shapes.ArchivedCorpusInfo: "OriginCorpus",
    job_shapes.ArchivedBaseInfo: "OriginBase",
    job_shapes.BaselinesInfo: "Baselines",
    job_shapes.EarlierRunInfo: "EarlierRun",
    log_shapes.LogInfo: "LogAnswer",
    log_shapes.LogLineInfo: "LogLine",
    job_shapes.RecipeInfo: "RecipeAnswer",
    GpuInfo: "Gpu",
    JobUseInfo: "JobUse",
    UserUseInfo: "UserUse",
    GpuUsageInfo: "GpuUsage",
    TelemetryInfo: "Telemetry",
    NodeInfo: "NodeAnswer",
    TrashedInfo: "TrashedAnswer",
    SharingInfo: "SharingAnswer",
    people_shapes.PersonInfo: "UserAnswer",
    people_shapes.QuotasInfo: "Quotas",
    people_shapes.PersonUsage: "UserUsageAnswer",
    people_shapes.PersonDetails: "UserDetail",
    people_shapes.ResetLinkInfo: "ResetLinkAnswer",
    people_shapes.AuditEntryInfo: "AuditEntryAnswer",
    people_shapes.InvitationInfo: "InvitationAnswer",
    people_shapes.NewInvitationInfo: "NewInvitationAnswer",
    shapes.CheckpointInfo: "CheckpointAnswer",
    shapes.CheckpointDetails: "CheckpointDetail",
    shapes.TaskProgressInfo: "TaskProgressAnswer",
    shapes.TaskFailureInfo: "TaskFailure",
    shapes.TaskInfo: "TaskAnswer",
    evaluation_shapes.ScoreInfo: "CorpusScoreAnswer",
    evaluation_shapes.ScoreComparisonInfo: "ScoreComparison",
    shapes.TokenInfo: "TokenProbability",
    shapes.GeneratedTokenInfo: "GeneratedToken",
    shapes.GenerationInfo: "GenerateAnswer",
    shapes.ReplicaInfo: "ReplicaAnswer",
    shapes.UsageInfo: "UsageAnswer",
    shapes.HourInfo: "HourAnswer",
    shapes.DeploymentInfo: "DeploymentAnswer",
    shapes.ColumnInfo: "ConversationColumnFields",
    shapes.AnswerSettingsInfo: "AnswerSettings",
    shapes.MessageInfo: "MessageAnswer",
    shapes.ConversationInfo: "ConversationAnswer",
    shapes.ConversationDetails: "ConversationDetail",
    synthetic_shapes.EndpointInfo: "ModelEndpointAnswer",
    synthetic_shapes.AnswerExample: "AnswerProblemInfo",
    synthetic_shapes.DraftCountsInfo: "DraftCounts",
    synthetic_shapes.RecordGenerationInfo: "RecordGenerationAnswer",
    synthetic_shapes.DraftInfo: "DraftAnswer",
    synthetic_shapes.SynthesisInfo: "SynthesisAnswer",
    shapes.RecordMessageInfo: "RecordMessage",
    shapes.RecordInfo: "TrainingRecord",
    JoinTokenInfo: "JoinTokenAnswer",
    PartInfo: "PartAnswer",
    HealthInfo: "HealthAnswer",
    NewJoinTokenInfo: "NewJoinTokenAnswer",
    NodeConfigurationInfo: "NodeConfigurationAnswer",
    notice_shapes.UserNoticeInfo: "UserNoticeAnswer",
    notice_shapes.NoticeDeliveryInfo: "NoticeDeliveryAnswer",
    notice_shapes.UnreadInfo: "UnreadAnswer",
    notice_shapes.NoticeSettingsInfo: "NoticeSettingsAnswer",
    notice_shapes.NoticeServiceInfo: "NoticeServiceAnswer",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    answer: dict[str, Any] = create_app().openapi()
    return answer


def operation(document: dict[str, Any], request: httpx2.Request) -> tuple[str, dict[str, Any]]:
    """The path and description of the operation that a request calls."""
    for method, path, description in api_document.operations(document):
        pattern = re.sub(r"\{\w+\}", "[^/]+", path)
        if method == request.method and re.fullmatch(pattern, request.url.path) and not LEFT_OUT.match(path):
            return path, description
    raise AssertionError(f"no operation answers {request.method} {request.url.path}")


def example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value of a schema."""
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], schemas)
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: example(part, schemas) for name, part in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [example(schema["items"], schemas)]
    plain = {"string": "text", "integer": 3, "number": 1.5, "boolean": True}
    return "2026-01-01T12:00:00Z" if schema.get("format") == "date-time" else plain[schema["type"]]


def answered(document: dict[str, Any], description: dict[str, Any]) -> httpx2.Response:
    """The answer to an operation: an example of its schema."""
    statuses = [status for status in sorted(description["responses"]) if status.startswith("2")]
    status = next((status for status in statuses if "content" in description["responses"][status]), statuses[0])
    if status == "204" or description["operationId"].startswith(("download_file", "download_metrics")):
        return httpx2.Response(int(status), content=b"GGUF" if status == "200" else b"")
    schemas_by_name = document["components"]["schemas"]
    name = description["operationId"]
    schema = description["responses"][status]["content"].get("application/json", {}).get("schema", {})
    if name == "stream_job":
        schema = {"$ref": "#/components/schemas/JobAnswer"}
    body = json.dumps({**example(schema, schemas_by_name), **({"next": None} if "list" in name else {})}).encode()
    if name in STREAM:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=STREAM[name] % body)
    return httpx2.Response(int(status), content=body)


def requests_of(document: dict[str, Any], call: Callable[[Client, Path], Any], file: Path) -> list[httpx2.Request]:
    """The requests that a call sends to a server that answers as the document says."""
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        request.read()
        sent.append(request)
        return answered(document, operation(document, request)[1])

    with Client("http://localhost", "ath_test", transport=httpx2.MockTransport(answer)) as client:
        call(client, file)
    return sent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("In the beginning")
    return path


@pytest.mark.parametrize("name", CALLS)
def test_a_method_sends_what_its_operation_takes(document: dict[str, Any], file: Path, name: str) -> None:
    (request,) = requests_of(document, CALLS[name], file)
    path, description = operation(document, request)
    assert description["operationId"] == name
    assert request.headers["authorization"] == "Bearer ath_test"
    parameters = {
        (part["in"], part["name"]) for part in description.get("parameters", []) if not part.get("deprecated")
    }
    taken = {name for place, name in parameters if place == "query"} - {"after"}  # the cursor of further pages
    assert set(request.url.params) == taken, path
    if request.method == "POST" and {"201", "202"} & description["responses"].keys():
        assert len(request.headers["idempotency-key"]) == 36
    if name == "stream_job":
        assert request.headers["last-event-id"] == "1.2"
    content = description.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        check_body(document, content["application/json"]["schema"], request)
    elif content:
        assert request.content == file.read_bytes()
        assert request.headers["content-length"] == str(len(file.read_bytes()))
    else:
        assert request.content == b""


def check_body(document: dict[str, Any], schema: dict[str, Any], request: httpx2.Request) -> None:
    """A body is valid and has every field that its schema knows."""
    body = json.loads(request.content)
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.validator_for(whole).validate(body)
    name = schema.get("$ref", "").rpartition("/")[2]
    properties = document["components"]["schemas"][name]["properties"] if name else {key: {} for key in body}
    fields = {field for field, about in properties.items() if not about.get("deprecated")}
    assert fields - body.keys() <= {"prompt"}  # messages are sent in its place
    assert body.keys() - fields == set()


def test_a_parse_of_all_files_sends_no_file_names(document: dict[str, Any], file: Path) -> None:
    (request,) = requests_of(document, lambda client, _file: client.corpora.parse("c", kind="chat"), file)
    assert "filenames" not in json.loads(request.content)


def test_every_operation_has_a_method(document: dict[str, Any]) -> None:
    offered = {
        description["operationId"]
        for _method, path, description in api_document.operations(document)
        if AREAS & set(description["tags"]) and not LEFT_OUT.match(path)
    }
    tested_elsewhere = {"download_checkpoint", "download_archive", "join_node"}  # archives; and what needs no token
    assert offered - CALLS.keys() == tested_elsewhere


def test_a_token_is_created_for_a_name_and_a_password(document: dict[str, Any]) -> None:
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(operation(document, request)[1]["operationId"])
        return answered(document, operation(document, request)[1])

    transport = httpx2.MockTransport(answer)
    assert create_token("http://localhost", "Alice", "secret", "laptop", transport) == "text"
    assert sent == ["log_in", "create_token", "log_out"]


def test_a_machine_joins_without_an_api_token(document: dict[str, Any]) -> None:
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        path, description = operation(document, request)
        sent.append(path)
        assert "authorization" not in request.headers
        check_body(document, description["requestBody"]["content"]["application/json"]["schema"], request)
        return answered(document, description)

    transport = httpx2.MockTransport(answer)
    assert join("http://localhost", "ath_join_1", "gpu-2", "0051", transport).database_url == "text"
    assert sent == ["/api/v1/nodes/join"]


# ---- answers --------------------------------------------------------------------------------------------------------


def all_shapes(base: type[Shape] = Shape) -> Iterator[type[Shape]]:
    for shape in base.__subclasses__():
        yield shape
        yield from all_shapes(shape)


def essence(schema: dict[str, Any], schemas_by_name: dict[str, Any]) -> Any:
    """What a schema says about the type of a value: without titles, bounds and the values of an enumeration."""
    if "$ref" in schema:
        target = schemas_by_name[schema["$ref"].rpartition("/")[2]]
        return sorted(target["properties"]) if "properties" in target else essence(target, schemas_by_name)
    if "anyOf" in schema:
        parts = [essence(part, schemas_by_name) for part in schema["anyOf"]]
        return sorted(map(json.dumps, parts))
    if schema.get("type") == "array":
        return ["array", essence(schema["items"], schemas_by_name)]
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return ["object", essence(schema["additionalProperties"], schemas_by_name)]
    return [schema["type"], schema.get("format") == "date-time"]


def test_every_shape_has_a_schema() -> None:
    assert set(all_shapes()) == SCHEMAS.keys()


@pytest.mark.parametrize("shape", SCHEMAS, ids=lambda shape: shape.__name__)
def test_a_shape_has_the_fields_of_its_schema(document: dict[str, Any], shape: type[Shape]) -> None:
    theirs = document["components"]["schemas"][SCHEMAS[shape]]
    ours = shape.model_json_schema(by_alias=True)
    assert set(ours["properties"]) == set(theirs["properties"])
    assert set(ours.get("required", [])) <= set(theirs.get("required", []))
    for name, schema in ours["properties"].items():
        own = essence(schema, ours.get("$defs", {}))
        expected = essence(theirs["properties"][name], document["components"]["schemas"])
        if (shape, name) == (job_shapes.PlanInfo, "spec"):  # any TrainSpec: the client does not repeat its fields
            expected = ["object", False]
        assert own == expected, f"{shape.__name__}.{name}"
