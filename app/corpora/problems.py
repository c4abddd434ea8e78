"""Problems of uploads: the sentence of each code that the parser reports."""

from typing import Any

from babel import Locale

from app.core import i18n
from app.core.encoding_shapes import EncodingCandidate, UndecodableFiles
from app.core.formatting import file_size
from app.core.i18n import Plural, _, gettext_noop, ngettext, translate
from app.core.json_shapes import Problem
from app.core.models import Corpus
from app.corpora.record_kinds import KIND_WORDS

MESSAGES: dict[str, str | Plural] = {
    "empty": gettext_noop("The corpus is empty: the file has no text, or only whitespace."),
    "all_skipped": gettext_noop("Nothing is left: all documents were left out. Replace their bad bytes instead."),
    "kind_differs": gettext_noop(
        "The file holds {kind}, but the files before it hold {first_kind}. Put it into a corpus of its own."
    ),
    "undecodable": gettext_noop("The file is not valid {encoding}: the bytes at position {byte} cannot be decoded."),
    "nul": gettext_noop("The file has a NUL character at byte {byte}. Text must not contain any."),
    "trailing_comma": gettext_noop("There is a comma at character {character} with nothing after it. Remove it."),
    "array_unclosed": gettext_noop("The file ends inside its JSON array. Upload it again if it is incomplete."),
    "array_rest": gettext_noop(
        "Text follows the end of the JSON array. Put all records into one array, or one on each line."
    ),
    "json_object": gettext_noop("The file is one JSON object. Write a list of records, or one record on each line."),
    "half_line": gettext_noop("The JSON object ends early, at character {character}."),
    "not_json": gettext_noop("This is not valid JSON: error at character {character}."),
    "number_infinite": gettext_noop("The number {word} is too large. Use a finite one."),
    "constant": gettext_noop("{word} is not a JSON value. Use null or a number."),
    "duplicate_key": gettext_noop("The object has the key “{key}” twice."),
    "too_deep": gettext_noop("The object is nested too deeply."),
    "not_object": gettext_noop('The line is JSON, but not an object. Write {{"text": "..."}}.'),
    "text_missing": gettext_noop("The object has no key “text”."),
    "text_not_string": gettext_noop("The value of “text” is not a string."),
    "text_empty": gettext_noop("The value of “text” is empty."),
    "keys_unknown": gettext_noop(
        "These keys were found: {keys}. Which are prompt and answer? Say so on the page of the corpus, or name them "
        "“prompt” and “completion”."
    ),
    "text_nul": gettext_noop("The value of “text” has a NUL character."),
    "surrogate": gettext_noop("The value of “text” has an unpaired surrogate at character {character}."),
    "record_mixed": gettext_noop(
        "This record is of the kind {found}, but the file starts with {kind}. Use one kind per file."
    ),
    "field_missing": gettext_noop("The record has no field “{field}”."),
    "field_not_string": gettext_noop("The value of “{field}” is not a string."),
    "field_empty": gettext_noop("The value of “{field}” is empty."),
    "field_nul": gettext_noop("The value of “{field}” has a NUL character."),
    "field_surrogate": gettext_noop("The value of “{field}” has an unpaired surrogate at character {character}."),
    "field_infinite": gettext_noop("The value of “{field}” contains a number that is not finite. Use a finite one."),
    "field_not_json": gettext_noop("The value of “{field}” is not valid JSON."),
    "field_not_messages": gettext_noop(
        "The value of “{field}” must be a list of messages, each with role and content."
    ),
    "message_not_object": gettext_noop("Message {number} is not an object with role and content."),
    "message_missing": gettext_noop("Message {number} has no field “{field}”."),
    "message_not_string": gettext_noop("In message {number}, the value of “{field}” is not a string."),
    "message_empty": gettext_noop("In message {number}, the value of “{field}” is empty."),
    "message_nul": gettext_noop("In message {number}, the value of “{field}” has a NUL character."),
    "message_surrogate": gettext_noop(
        "In message {number}, the value of “{field}” has an unpaired surrogate at character {character}."
    ),
    "message_infinite": gettext_noop(
        "In message {number}, the value of “{field}” contains a number that is not finite. Use a finite one."
    ),
    "message_not_json": gettext_noop("In message {number}, the value of “{field}” is not valid JSON."),
    "message_part": gettext_noop(
        "In message {number}, part {part} of “{field}” has the type {type}; only text can be learned."
    ),
    "message_key_unsupported": gettext_noop(
        "Message {number} ({role}) has “{key}”, which cannot be learned here. Remove the key, or skip the line."
    ),
    "tool_calls_invalid": gettext_noop(
        "The tool calls of message {number} must be a list of functions, each with a name and an object of arguments."
    ),
    "tools_invalid": gettext_noop("“{field}” must be a list of functions, each with a name, or the JSON of one."),
    "history_invalid": gettext_noop("“history” must be a list of pairs, each a question and its answer."),
    "system_twice": gettext_noop("The record has a “system” besides another system message. Remove one of them."),
    "key_unsupported": gettext_noop(
        "The record has “{key}”, which changes its meaning and cannot be learned here. Remove it, or skip the line."
    ),
    "key_of_chat": gettext_noop("The record has “{key}”, which completions lack. Read the file as conversations."),
    "pair_list": gettext_noop(
        "The value of “{field}” is a list. Pairs of answers need the keys “chosen” and “rejected”, messages “messages”."
    ),
    "judgment": gettext_noop(
        "“{key}” judges a single answer, but is neither true nor false. Remove the key, or map the columns by hand."
    ),
    "judged_bad": gettext_noop(
        "The answer is judged bad (“{key}”), so it is not learned. Skip such records to train on the good ones."
    ),
    "judgment_invalid": gettext_noop("“{key}” must be true or false, for a good or a bad answer."),
    "answers_empty": gettext_noop("The question has no answer, so there is nothing to learn."),
    "languages_differ": gettext_noop("The record is in {found}, but the file starts with {expected}."),
    "role_unknown": gettext_noop("Message {number} has the role “{role}”; use system, user, assistant or tool."),
    "messages_unanswered": gettext_noop("The conversation has no assistant message, so there is nothing to learn."),
    "weight_invalid": gettext_noop("The weight of message {number} must be a number from 0 to 1,000,000."),
    "train_invalid": gettext_noop("“train” of message {number} must be true or false, and without a weight beside it."),
    "answers_same": gettext_noop("“chosen” and “rejected” are the same, so there is no preference to learn."),
    "answer_role": gettext_noop("“{field}” ends with a message of the role {role}. It must end with the assistant's."),
    "prompt_differs": gettext_noop(
        "The messages of “chosen” and “rejected” must start with those of the prompt, or with the assistant's answer."
    ),
    "prompts_differ": gettext_noop(
        "“chosen” and “rejected” must start with the same messages and differ in the assistant's answer."
    ),
    "label_invalid": gettext_noop("The label must be a non-empty string of at most 200 characters, or an integer."),
    "labels_many": gettext_noop("There are more than {limit} different labels. Is this the right column?"),
    "expected_answer_invalid": gettext_noop("“answer” must be a text, a number, or a list of them that are all right."),
    "check_unknown": gettext_noop("“{check}” is no way to check an answer; “check” must be one of {checks}."),
    "expected_number_invalid": gettext_noop(
        "With the check “number”, “answer” must be a number, and “tolerance” one that is not negative."
    ),
    "pattern_invalid": gettext_noop("“{pattern}” is not a regular expression: {why}."),
    "choices_invalid": gettext_noop("“choices” must be a list of at least two different strings."),
    "answer_invalid": gettext_noop("“answer” must be one of the choices or its index, counted from 0."),
    "columns": gettext_noop(
        "The first row must contain column names: text and label, prompt and completion, source and target, "
        "or prompt, chosen and rejected. It contains: {found}. Say on this page what each column is."
    ),
    "column_twice": gettext_noop("The first row names the column “{name}” twice. Rename one of them."),
    "row_length": Plural(
        "The row has {found} cell, but the first row has {expected}.",
        "The row has {found} cells, but the first row has {expected}.",
        "found",
    ),
    "csv": gettext_noop("The row cannot be read: {why}."),
    "row_too_long": gettext_noop(
        "The row is longer than 16 MiB. Close the quotation mark that is still open in it, or split the document."
    ),
    "line_too_long": gettext_noop("The line is longer than 16 MiB. Split the document."),
    "document_split": gettext_noop(
        "Document {document} of the version that was cleaned is longer than a line of JSON may be (16 MiB), so it was "
        "split into {parts} documents."
    ),
    "expands_too_much": gettext_noop(
        "The file would expand to more than {limit}, over {ratio} times its size. Upload what is in it instead."
    ),
    "archive_broken": gettext_noop("The file cannot be unpacked: {why}. Upload it again if it is incomplete."),
    "archive_many": gettext_noop("The archive has more than {limit} files. Split it, or put the texts into one file."),
    "archive_unsafe": gettext_noop(
        "The archive has a file at a path outside of it, or with a name that is too long: {file}. Pack it again."
    ),
    "archive_special": gettext_noop(
        "The archive has a link, device or other special file: {file}. Pack plain files only."
    ),
    "archive_twice": gettext_noop("The archive has two files of the same name: {file}. Rename one of them."),
    "archive_nested": gettext_noop("The file is compressed or an archive itself. Unpack it first."),
    "file_empty": gettext_noop("The file is empty."),
    "file_encrypted": gettext_noop("The file is encrypted. Save it without a password or copy protection."),
    "file_broken": gettext_noop("The file cannot be read: {why}. Open it in its program and save it again."),
    "file_expands_too_much": gettext_noop(
        "The file would expand to more than {limit}, over {ratio} times its size. Save its text instead."
    ),
    "file_too_large_to_read": gettext_noop("The file is larger than {limit}. Split it."),
    "no_text": gettext_noop("The file has no text."),
    "pdf_without_text": gettext_noop(
        "None of its pages ({pages}) has text: it is probably scanned. Recognize its text first (OCR)."
    ),
    "pages_without_text": Plural(
        "{pages} page has no text, such as a scanned one: {numbers}.",
        "{pages} pages have no text, such as scanned ones: {numbers}.",
        "pages",
    ),
    "office_old": gettext_noop("The file has an old format of Office. Save it as .docx or .xlsx."),
    "out_of_memory": gettext_noop("Parsing was stopped: it needed more than {limit} of memory."),
    "disk_filled_up": gettext_noop(
        "The disk of the data directory became full, so parsing was stopped. Free some space, then parse the file "
        "again."
    ),
    "storage": gettext_noop("A file could not be written to disk: {why}."),
    "result_unstorable": gettext_noop(
        "What was read could not be stored ({why}). Read the file again, or report the fault with its first lines."
    ),
    "reader_lost": gettext_noop(
        "The worker was lost {count} times while it parsed this file. Look at the memory and the log of the worker, "
        "then parse the file again, or split it."
    ),
    "reading_cancelled": gettext_noop("Reading the file was cancelled. Read it again, or delete the corpus."),
    "all_removed": gettext_noop(
        "The recipe removes every document. Look at its preview, and set its steps less strictly."
    ),
    "reference_short": gettext_noop(
        "The reference corpora of the perplexity step have fewer than 1,000 words. Choose corpora with more text."
    ),
    "ngrams_many": gettext_noop(
        "The corpora of the step “Contamination” have too many n-grams to hold in memory. Choose smaller ones."
    ),
    "parent_gone": gettext_noop(
        "The version that was to be cleaned, or a corpus that it is compared with, was deleted or read again. Start "
        "from the version as it is now, or from another one."
    ),
    "scoring_model_gone": gettext_noop(
        "The model that scores the documents was deleted. Start from the version before with another model."
    ),
    "scoring_model_unreadable": gettext_noop(
        "The files of the model that scores the documents cannot be opened. Choose another model."
    ),
    "scoring_memory": gettext_noop(
        "The model that scores the documents needs more memory than this task may use. Choose a smaller model."
    ),
    "cleaning_memory": gettext_noop(
        "Cleaning was stopped: it needed more than {limit} of memory. Leave out the near duplicates, or split the "
        "corpus."
    ),
    "cleaning_lost": gettext_noop(
        "The worker was lost {count} times while it cleaned this corpus. Look at the memory and the log of the worker, "
        "then run the recipe again."
    ),
    "cleaning_cancelled": gettext_noop("The cleaning was cancelled. Run the recipe again, or delete this version."),
    "cleaning_died": gettext_noop("The cleaning took too long or was stopped. Run the recipe again with fewer steps."),
    "download_address": gettext_noop(
        "Corpora are not downloaded from {host}, or not any more. The operator can list it in ATHANOR_DOWNLOAD_HOSTS."
    ),
    "download_away": gettext_noop("The file could not be downloaded: {why}. Read it again to continue the download."),
    "download_status": gettext_noop("The server answered with status {status} instead of the file. Check the address."),
    "download_redirected": gettext_noop(
        "The address leads on to {host}, from which corpora are not downloaded in this way. The operator can list the "
        "host in ATHANOR_DOWNLOAD_HOSTS, with http:// before it if it is reached by http or at a private address."
    ),
    "download_redirects": gettext_noop("The address leads from one to another without end."),
    "download_encoded": gettext_noop("The server sends the file as {coding} only, which is not read."),
    "download_too_large": gettext_noop("The file is larger than {limit}, which is left for it here."),
    "download_empty": gettext_noop("The file at this address is empty."),
    "download_slow": gettext_noop("The download took longer than a day. Read it again to continue the download."),
    "download_died": gettext_noop("The download was stopped. Read it again to continue the download."),
    "dataset_closed": gettext_noop(
        "The hub does not give the data set {name} to everybody (status {status}): it is private, asks for consent "
        "(gated), or does not exist. Download its files where you are logged in, and upload them."
    ),
    "dataset_unknown": gettext_noop(
        "The hub has no data set {name}, or no such revision or folder of it (status {status}). Check the address."
    ),
    "dataset_listing": gettext_noop("The hub's list of the files of the data set {name} cannot be read."),
    "dataset_pages": gettext_noop(
        "The hub lists too many files and folders of the data set: more than {limit}. Enter the address of one of its "
        "folders."
    ),
    "dataset_path": gettext_noop(
        "The data set has a file at a path that is not allowed: {name}. Enter the address of one of its folders."
    ),
    "dataset_unreadable": gettext_noop("No file there has a format that is read here."),
    "dataset_files_many": gettext_noop(
        "The data set has too many files to read: {count}. A corpus has at most {limit}. Enter the address of one of "
        "its folders."
    ),
    "dataset_file_too_large": gettext_noop(
        "A file of the data set, {name}, has {size}, more than the limit of {limit}. Enter the address of a folder "
        "without it."
    ),
    "dataset_too_large": gettext_noop(
        "The files of the data set have {size}, but only {limit} is left for them here. Enter the address of one of "
        "its folders, or free some space."
    ),
    "parser_died": gettext_noop("Parsing took too long or was stopped. Parse the file again, or split it."),
}

# How people call the encodings.
ENCODINGS = {
    "utf-8": "UTF-8",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
    "utf-32-le": "UTF-32 LE",
    "utf-32-be": "UTF-32 BE",
    "gb18030": "GB18030 (GBK, GB2312)",
    "big5": "Big5",
    "cp932": "Shift-JIS (CP932)",
    "euc-jp": "EUC-JP",
    "cp949": "EUC-KR (CP949)",
    "windows-1250": "Windows-1250 (Central European)",
    "windows-1251": "Windows-1251 (Cyrillic)",
    "windows-1252": "Windows-1252 (Latin)",
    "windows-1253": "Windows-1253 (Greek)",
    "windows-1254": "Windows-1254 (Turkish)",
    "windows-1255": "Windows-1255 (Hebrew)",
    "windows-1256": "Windows-1256 (Arabic)",
    "windows-1257": "Windows-1257 (Baltic)",
    "windows-1258": "Windows-1258 (Vietnamese)",
    "koi8-r": "KOI8-R (Russian)",
    "koi8-u": "KOI8-U (Ukrainian)",
}
# Why a file was read in an encoding.
ENCODING_REASONS = {
    "mark": gettext_noop("by the byte-order mark at its beginning"),
    "chosen": gettext_noop("chosen by you"),
    "declared": gettext_noop("declared in the file"),
    "valid": gettext_noop("the default; every byte of the file was valid"),
}
# Languages that chardet calls otherwise than the Unicode consortium does.
OTHER_NAMES = {"Slovene": "Slovenian", "Farsi": "Persian"}
# What was decided about bytes that cannot be decoded.
BAD_BYTES = {
    "omit": gettext_noop("Bad bytes left out"),
    "replace": gettext_noop("Bad bytes replaced by U+FFFD"),
    "skip_document": gettext_noop("Documents with bad bytes left out"),
}


def encoding_reason(candidate: EncodingCandidate) -> str:
    """Why a file may be text in an encoding, in the reader's language."""
    if candidate.num_bad_places:
        decoded = ngettext(
            "{n} place of the whole file does not decode",
            "{n} places of the whole file do not decode",
            candidate.num_bad_places,
        )
    else:
        decoded = _("The whole file decodes")
    if not candidate.language:
        return _("{decoded}, into words and common characters.", decoded=decoded)
    language = language_name(candidate.language)
    return _("{decoded}, and its letters are about as frequent as in {language}.", decoded=decoded, language=language)


def encoding_offers(corpus: Corpus) -> list[tuple[UndecodableFiles, list[tuple[EncodingCandidate, str]]]]:
    """The files of a corpus that cannot be decoded, and which encodings are offered for them with what reasons."""
    return [
        (broken, [(candidate, encoding_reason(candidate)) for candidate in broken.candidates])
        for broken in corpus.progress.broken_files
    ]


def language_name(english: str) -> str:
    """The name of a language in the reader's language, from its English name."""
    english = OTHER_NAMES.get(english, english)
    code = next((code for code, name in Locale("en").languages.items() if name == english), english)
    return i18n.language_name(code)


def by_reason(problems: list[Problem], counts: dict[str, int]) -> list[tuple[int, str]]:
    """How many lines are bad for each reason, the most frequent first, with the sentence of the first such line."""
    first = {problem.code: problem for problem in reversed(problems)}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [(count, sentence(first[code])) for code, count in ordered if code in first]


def first_sentence(problems: list[Problem]) -> str | None:
    """The first problem in the reader's language, with the number of its line if it is of one."""
    if not problems:
        return None
    first = problems[0]
    text = sentence(first)
    text = text if first.line is None else _("Line {line}: {problem}", line=first.line, problem=text)
    return text if first.file is None else f"{first.file}: {text}"


def sentence(problem: Problem) -> str:
    """A problem in the reader's language."""
    message = MESSAGES[problem.code]
    values: dict[str, Any] = problem.values
    if "encoding" in values:
        values["encoding"] = ENCODINGS[values["encoding"]]
    for name in ("kind", "first_kind", *(["found"] if problem.code == "record_mixed" else [])):
        if values.get(name) in KIND_WORDS:
            values[name] = translate(KIND_WORDS[values[name]])
    for name in ("size", "limit"):
        if f"{name}_bytes" in values:
            values[name] = file_size(values[f"{name}_bytes"])
    return _(message, **values or {"n": 0})  # a sentence without values is filled too: its braces stand twice
