"""What real users of comparable systems complained about: each case with its right value and the tests that hold it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A complaint, or several of one kind.

    `files` are patterns below tests/fixtures/cases/data, none where the tests build their input. `source` names
    the public thread, `tests` the tests by file and name, without their parameters.
    """

    name: str
    source: str
    right: str
    tests: tuple[str, ...]
    files: tuple[str, ...] = ()


_PARSED = "tests/worker/sandbox/corpus/test_cases.py::test_every_record_is_parsed_as_intended"
_JUDGED = "tests/worker/sandbox/corpus/test_cases.py::test_judged_answers_are_read_as_completions_without_the_bad_ones"
_REJECTED = "tests/worker/sandbox/corpus/test_cases.py::test_an_invalid_record_is_rejected_with_line_and_field"
_RECORDS = "tests/trainer/data/test_tokenized_records.py::"
_FILES = "tests/trainer/data/test_case_files.py::"
_TRAINED_ON = "tests/trainer/datasets/test_trained_on.py::"
_TEMPLATES = "tests/trainer/data/test_chat_template.py::"
_IMPORT = "tests/worker/sandbox/model_import/test_validate.py::"
_ACCEPTED = "tests/worker/sandbox/model_import/test_accepted_models.py::"
_STOPS = "tests/trainer/inference/test_stop_tokens.py::"
_LLAMACPP = "tests/trainer/export/test_llamacpp.py::"

RECORDS = (
    Case(
        "NUL characters",
        "HumanSignal/label-studio#3153",
        "the line is refused with its number and field",
        (_REJECTED, "tests/app/corpora/test_api.py::test_strings_that_the_database_rejects_are_reported_by_line"),
        ("D06-*",),
    ),
    Case(
        "lone surrogates",
        "openai/tiktoken#82",
        "the line is refused with its number and field",
        (
            _REJECTED,
            "tests/app/corpora/test_api.py::test_a_result_that_cannot_be_stored_fails_the_corpus_with_a_reason",
        ),
        ("D05-*",),
    ),
    Case(
        "preferences of ShareGPT",
        "hiyouga/LlamaFactory#3495",
        "preference pairs with their earlier turns",
        (_PARSED,),
        ("D10-dpo-sharegpt-*",),
    ),
    Case(
        "preferences as lists of messages",
        "axolotl-ai-cloud/axolotl#1645",
        "earlier turns are kept; an answer that is not the assistant's is refused",
        (_PARSED, _REJECTED),
        ("D10-dpo-multiturn-lists.jsonl", "D10-dpo-last-is-user.jsonl"),
    ),
    Case(
        "preferences without a prompt, equal, or as pairs of outputs",
        "axolotl-ai-cloud/axolotl#1645",
        "an implicit prompt is read as TRL reads it; the others are refused",
        (_PARSED, _REJECTED, _RECORDS + "test_pairs_that_are_equal_after_truncation_are_skipped"),
        ("D10-dpo-same.jsonl", "D10-dpo-implicit-prompt.jsonl", "D10-dpo-alpaca-output-pair.jsonl"),
    ),
    Case(
        "judgments of single answers",
        "h2oai/h2o-llmstudio#544, huggingface/trl#1116",
        "a kind of their own; read as completions, the bad ones are refused",
        (_PARSED, _JUDGED),
        ("D11-*",),
    ),
    Case(
        "system prompts, tools and inputs beside a record",
        "huggingface/open-r1#340, hiyouga/LlamaFactory#3555",
        "`system`, `tools` and `history` are used; a null input is none",
        (_PARSED, "tests/worker/sandbox/corpus/test_record_schema.py::test_a_record_is_recognized_and_normalized"),
        ("D07-*", "D08-*"),
    ),
    Case(
        "tools in conversations",
        "hiyouga/LlamaFactory#5866, hiyouga/LlamaFactory#2529",
        "roles of tools are read, calls are kept and rendered by the template, or the record is named",
        (
            _PARSED,
            "tests/trainer/data/test_record_encoding.py::test_a_record_that_the_template_renders_incompletely_is_rejected",
        ),
        ("D09-*",),
    ),
    Case(
        "weights of messages",
        "axolotl-ai-cloud/axolotl#1703",
        "0, 0.5 and 1 exactly; an infinite weight is refused",
        (
            _PARSED,
            _REJECTED,
            "tests/trainer/data/test_record_encoding.py::test_a_message_with_weight_0_is_context",
            _FILES + "test_weights_of_answers_are_those_of_the_file",
        ),
        ("D20-*",),
    ),
    Case(
        "control tokens spelled in texts",
        "vllm-project/vllm#31735",
        "text never becomes a control token, whatever list of the tokenizer declares it",
        (
            _PARSED,
            _FILES + "test_marks_in_texts_become_no_control_tokens",
            _TEMPLATES + "test_text_of_users_never_becomes_a_special_token",
            _TEMPLATES + "test_a_special_token_spelled_in_a_text_changes_nothing_else",
        ),
        ("D13-*",),
    ),
    Case(
        "long answers and blank lines in evaluations",
        "EleutherAI/lm-evaluation-harness#1837, EleutherAI/lm-evaluation-harness#2798",
        "exact answers count as exact",
        ("tests/trainer/inference/test_lm_eval_harness.py::test_exact_answers_match_despite_length_or_blank_lines",),
        ("D29-*",),
    ),
    Case(
        "records longer than a sequence",
        "hiyouga/LlamaFactory#3995",
        "how many are cut and dropped is counted, of validation corpora too; bytes per token are those that are read",
        (
            _RECORDS + "test_long_records_are_truncated_and_skipped_if_no_answer_is_left",
            _RECORDS + "test_bytes_per_token_are_those_of_the_text_that_is_trained_on",
        ),
        ("D12-*",),
    ),
    Case(
        "epochs of records",
        "axolotl-ai-cloud/axolotl#3152",
        "a plan counts records, not bytes, packed and unpacked",
        (
            "tests/trainer/planning/test_plan.py::test_epochs_of_records_count_records",
            _RECORDS + "test_every_record_is_trained_on_once_an_epoch_or_held_out",
        ),
        ("D15-*", "D16-*"),
    ),
    Case(
        "one class",
        "apple/turicreate#1945",
        "refused: nothing to tell apart",
        (
            _RECORDS + "test_records_of_one_class_are_rejected",
            "tests/app/jobs/planning/test_validation.py::test_a_classifier_with_one_label_is_rejected",
        ),
        ("D14-one-class.jsonl",),
    ),
    Case(
        "rare classes",
        "Athanor",
        "each class is held out in proportion, and a rare one too",
        (_RECORDS + "test_each_class_is_held_out_in_proportion_and_a_rare_one_too",),
        ("D14-imbalanced.jsonl",),
    ),
    Case(
        "labels of other types and sets",
        "huggingface/autotrain-advanced#784",
        "clear refusals; labels that are numbers are in numeric order",
        (
            _REJECTED,
            _RECORDS + "test_labels_that_are_numbers_are_in_numeric_order",
            _RECORDS + "test_labels_are_numbered_by_name_and_shared_with_a_validation_corpus",
            _FILES + "test_a_validation_corpus_may_lack_labels",
            _FILES + "test_a_label_of_a_validation_corpus_that_is_not_trained_on_is_refused",
        ),
        ("D14-bool-*", "D14-int-*", "D14-label-*", "D14-null-*", "D14-train.jsonl", "D14-validation-*"),
    ),
    Case(
        "byte-order marks",
        "huggingface/datasets#8241",
        "left out, inside joined files too",
        (_PARSED, "tests/worker/sandbox/corpus/test_parse.py::test_arrays_and_joined_files_are_read"),
        ("D01-*",),
    ),
    Case(
        "JSON arrays",
        "oobabooga/textgen#2500",
        "read whatever the ending of the name; a trailing comma is named by its place",
        (
            "tests/worker/sandbox/corpus/test_cases.py::test_an_array_is_parsed_with_any_file_extension",
            "tests/worker/sandbox/corpus/test_cases.py::test_a_trailing_comma_is_reported_with_its_position",
        ),
        ("D02-*",),
    ),
    Case(
        "separators of tables",
        "huggingface/autotrain-advanced#111",
        "found; columns that are not used are counted",
        (
            "tests/worker/sandbox/corpus/test_cases.py::test_a_table_is_parsed_with_its_own_separator",
            "tests/worker/sandbox/corpus/test_cases.py::test_unused_columns_are_counted",
        ),
        ("D03-*", "D28-*"),
    ),
    Case(
        "encodings",
        "xxw1995/chatglm3-finetune#11",
        "the right one is offered first, Windows-1251 and Shift-JIS too",
        ("tests/worker/sandbox/corpus/test_cases.py::test_the_encoding_is_offered_first_and_decodes_the_file",),
        ("D04-*",),
    ),
    Case(
        "records that a template refuses",
        "hiyouga/LlamaFactory#2962",
        "named by number; the rest goes on, or the job stops; an empty system prompt is none",
        (
            _PARSED,
            _RECORDS + "test_records_that_the_template_rejects_are_skipped_and_counted",
            _RECORDS + "test_a_job_can_stop_at_a_record_that_the_template_rejects",
        ),
        ("D17-*",),
    ),
    Case(
        "one record",
        "hiyouga/LlamaFactory#3119",
        "trains with a validation corpus",
        (
            _RECORDS + "test_one_record_is_trained_on_if_there_is_a_validation_corpus",
            _FILES + "test_one_record_trains_with_a_validation_corpus",
            "tests/app/jobs/planning/test_validation.py::test_one_record_needs_a_validation_corpus",
        ),
        ("D19-*",),
    ),
    Case(
        "duplicates across the split",
        "Athanor",
        "counted and told",
        (
            _RECORDS + "test_validation_records_that_are_trained_on_are_counted",
            _FILES + "test_copies_on_both_sides_of_the_split_are_counted",
            _TRAINED_ON + "test_copies_in_the_end_of_a_text_are_counted",
            _TRAINED_ON + "test_documents_of_validation_corpora_are_compared_with_what_is_trained_on",
        ),
        ("D21-*",),
    ),
    Case(
        "keys of other names",
        "openai/openai-python#383, modelscope/ms-swift#4699",
        "common names are read; of unknown ones the two likeliest are asked about",
        (_PARSED, "tests/worker/sandbox/corpus/test_record_schema.py::test_unknown_keys_are_reported"),
        ("D23-*",),
    ),
    Case(
        "texts with tabs, marks and two encodings",
        "Athanor",
        "kept byte for byte",
        (_PARSED, "tests/worker/sandbox/corpus/test_cases.py::test_text_is_kept_byte_for_byte"),
        ("D18-*", "D22-*"),
    ),
    Case(
        "one broken byte in 40 MB",
        "Athanor",
        "shown with its surroundings; left out, replaced, or read in another encoding",
        (
            "tests/worker/sandbox/corpus/test_cases.py::test_one_bad_byte_in_40_mb_is_shown_with_its_context",
            "tests/app/corpora/test_api.py::test_undecodable_bytes_are_dropped_or_replaced",
        ),
    ),
    Case(
        "keys that are not used",
        "Athanor",
        "counted on the page of the corpus and in the API",
        (
            "tests/app/corpora/test_pages.py::test_unused_keys_and_reasons_are_listed",
            "tests/app/corpora/test_api.py::test_any_key_can_be_listed_as_unused",
        ),
    ),
)

MODELS = (
    Case(
        "tokenizers with byte fallback",
        "vllm-project/vllm#17448, huggingface/tokenizers#1705",
        "text, with U+FFFD where bytes are bad; no sample ends a job",
        (
            "tests/trainer/data/test_detokenizer.py::test_any_tokens_decode_to_the_text_of_the_library",
            "tests/trainer/data/test_detokenizer.py::"
            "test_bad_bytes_become_replacement_characters_and_an_incomplete_character_is_omitted",
            _ACCEPTED + "test_text_is_generated_within_the_limits",
        ),
    ),
    Case(
        "the space before the first word",
        "huggingface/transformers#22710",
        "kept",
        ("tests/trainer/data/test_detokenizer.py::test_the_space_before_the_first_word_is_kept",),
    ),
    Case(
        "another end of turn than end of text",
        "axolotl-ai-cloud/axolotl#2073, QwenLM/Qwen3#927",
        "an answer stops here, in transformers and in llama.cpp",
        (
            _STOPS + "test_all_stop_tokens_are_saved_in_the_generation_config",
            _STOPS + "test_answers_end_where_they_end_in_transformers",
            _LLAMACPP + "test_it_stops_at_the_end_of_a_turn",
        ),
    ),
    Case(
        "several named templates",
        "ollama/ollama#6522",
        "“default” is taken",
        (
            _TEMPLATES + "test_the_default_of_several_templates_is_used",
            _ACCEPTED + "test_text_is_generated_within_the_limits",
        ),
    ),
    Case(
        "a generation prompt that opens a block for thoughts",
        "hiyouga/LlamaFactory#6987",
        "trains; the answer is found in the rendered text",
        (
            _TEMPLATES + "test_tokens_equal_those_of_transformers",
            _TEMPLATES + "test_answers_are_learned_with_the_end_of_their_turn",
        ),
    ),
    Case(
        "templates that refuse system prompts or move them",
        "huggingface/transformers#28366",
        "the record is named and left out; a job may have another template",
        (
            _RECORDS + "test_records_that_the_template_rejects_are_skipped_and_counted",
            "tests/trainer/training/test_chat.py::"
            "test_a_template_of_the_job_is_used_and_a_rejected_sample_does_not_end_the_run",
        ),
    ),
    Case(
        "a question without its template",
        "hiyouga/LlamaFactory#5834",
        "conversations are answered by the template of the model",
        ("tests/app/playground/test_api.py::test_conversations_use_the_template_of_the_model",),
    ),
    Case(
        "AutoTokenizer on our own Qwen2",
        "huggingface/transformers#44254",
        "our tokens",
        (
            "tests/trainer/data/test_auto_tokenizer.py::test_a_tokenizer_trained_here_gives_the_same_tokens",
            "tests/trainer/data/test_auto_tokenizer.py::test_an_imported_tokenizer_gives_the_same_tokens",
        ),
    ),
    Case(
        "configurations in transformers 4",
        "unslothai/unsloth#8444",
        "the same positions and the same head as in transformers 5",
        (
            "tests/trainer/modeling/test_config_file.py::test_rotary_settings_are_written_in_both_formats",
            "tests/trainer/modeling/test_config_file.py::"
            "test_a_t5_has_no_rotary_positions_and_says_whether_its_head_is_tied",
        ),
    ),
    Case(
        "GGUF of Llama 3.1 and of SentencePiece",
        "ggml-org/llama.cpp#8676",
        "written, and read by llama.cpp as by transformers",
        (
            _LLAMACPP + "test_it_reads_sentencepiece_tokenizers_scaled_positions_and_narrow_heads",
            "tests/trainer/export/test_export.py::test_scaled_positions_are_written_to_gguf",
        ),
    ),
    Case(
        "heads of a width of their own",
        "huggingface/transformers#21641",
        "accepted, and exported",
        (
            _IMPORT + "test_a_separate_head_dimension_is_accepted",
            _LLAMACPP + "test_it_reads_sentencepiece_tokenizers_scaled_positions_and_narrow_heads",
        ),
    ),
    Case(
        "no end-of-text token",
        "tatsu-lab/stanford_alpaca#247",
        "taken from the configuration, or refused at the import",
        (_IMPORT + "test_a_tokenizer_gets_the_end_of_text_token_of_the_configuration_or_is_rejected",),
    ),
    Case(
        "decoders that classify",
        "huggingface/transformers#35352",
        "`pipeline()` gives the probabilities that the job measures",
        ("tests/trainer/inference/test_pipelines.py::test_a_classifier_pipeline_gives_the_probabilities_of_the_job",),
    ),
    Case(
        "a beginning-of-text token that is not added",
        "huggingface/alignment-handbook#127",
        "the same first tokens in training and in use",
        (
            "tests/trainer/inference/test_pipelines.py::test_training_adds_the_prefix_tokens_of_the_tokenizer",
            "tests/trainer/inference/test_pipelines.py::"
            "test_the_text_generation_pipeline_tokenizes_like_the_playground",
        ),
    ),
    Case(
        "another head than a tied one",
        "huggingface/transformers#42612",
        "the head of the file is used everywhere",
        (
            _IMPORT + "test_a_separate_head_is_used_even_if_configured_as_tied",
            _ACCEPTED + "test_exports_succeed_within_the_limits",
        ),
    ),
    Case(
        "weights in a second format",
        "vllm-project/vllm#40765",
        "passed over with a remark",
        (_IMPORT + "test_weights_in_other_formats_are_skipped",),
    ),
    Case(
        "only the file of SentencePiece",
        "huggingface/transformers#33746",
        "told that the package is missing, and how to convert the tokenizer",
        (_IMPORT + "test_a_sentencepiece_tokenizer_needs_its_package",),
    ),
    Case(
        "evaluating an imported model",
        "modelscope/ms-swift#4660",
        "evaluated and exported like a checkpoint",
        (
            "tests/app/background_tasks/test_exports_and_evaluations.py::"
            "test_a_checkpoint_and_an_imported_model_are_evaluated_alike_and_exported",
            _ACCEPTED + "test_evaluations_succeed_within_the_limits",
        ),
    ),
    Case(
        "accepted models",
        "Athanor",
        "what is accepted works, or the import says what does not and why",
        (
            "tests/app/base_models/test_limits.py::test_limits_are_reported_by_the_import_and_by_each_request",
            _ACCEPTED + "test_objectives_have_their_tokens_within_the_limits",
        ),
    ),
    Case(
        "names of one installation in files that leave it",
        "Athanor",
        "the name on the hub, or none",
        (
            "tests/trainer/export/test_export.py::test_an_adapter_on_its_base_model_equals_the_merged_checkpoint",
            "tests/trainer/export/test_export.py::test_the_model_card_states_data_metrics_and_spec",
        ),
    ),
)
