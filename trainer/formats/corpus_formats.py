"""The formats of files that can become a corpus, by the endings of their names. Standard library only."""

# Endings of each format that has one document or many records in a file.
ENDINGS = {
    "txt": ("txt", "text", "log"),
    "md": ("md", "markdown", "rst"),
    "jsonl": ("jsonl", "ndjson"),
    "json": ("json",),
    "csv": ("csv",),
    "tsv": ("tsv", "tab"),
    "html": ("html", "htm", "xhtml"),
    "pdf": ("pdf",),
    "docx": ("docx",),
    "epub": ("epub",),
    "xlsx": ("xlsx", "xls", "ods"),
    "parquet": ("parquet",),
    "arrow": ("arrow", "feather", "ipc"),
    "code": (
        *("py", "pyi", "js", "mjs", "cjs", "jsx", "ts", "tsx", "java", "kt", "scala", "groovy", "clj"),
        *("c", "h", "cc", "cpp", "cxx", "hh", "hpp", "cu", "m", "mm", "cs", "fs", "vb", "go", "rs", "swift", "zig"),
        *("rb", "php", "pl", "pm", "lua", "r", "jl", "dart", "ex", "exs", "erl", "hs", "ml", "mli", "lisp", "scm"),
        *("sh", "bash", "zsh", "ps1", "bat", "sql", "css", "scss", "less", "vue", "svelte", "xml", "yaml", "yml"),
        *("toml", "ini", "cfg", "tex", "proto", "graphql", "cmake", "mk", "asm", "s", "v", "sv", "vhd", "tf"),
    ),
}
COMPRESSIONS = ("gz", "zst")
ARCHIVES = ("zip", "tar")
SHORT_ENDINGS = {"tgz": "tar.gz", "tzst": "tar.zst"}
# Files of source code whose names have no ending.
CODE_NAMES = ("makefile", "dockerfile", "license", "readme")

_FORMATS = {ending: form for form, endings in ENDINGS.items() for ending in endings}
# All last endings of file names.
FILE_ENDINGS = (*_FORMATS, *ARCHIVES, *COMPRESSIONS, *SHORT_ENDINGS)
# Formats whose records have keys or columns.
RECORD_FORMATS = ("jsonl", "json", "csv", "tsv", "xlsx", "parquet", "arrow")
# Formats that are text in an encoding, and not compressed.
ENCODED_FORMATS = ("txt", "md", "jsonl", "json", "csv", "tsv", "code", "html")


def format_of(filename: str) -> str | None:
    """The format of a file by its name, such as jsonl, code, zip, csv.gz or tar.zst; None if it is not supported."""
    stem, dot, ending = filename.lower().rpartition(".")
    if not dot:
        return "code" if filename.lower() in CODE_NAMES else None
    if ending in COMPRESSIONS:
        inner = format_of(stem)
        return f"{inner}.{ending}" if inner in _FORMATS.values() or inner == "tar" else None
    if ending in SHORT_ENDINGS:
        return SHORT_ENDINGS[ending]
    return ending if ending in ARCHIVES else _FORMATS.get(ending)


def stem_of(filename: str) -> str:
    """A file name without the endings that say its format."""
    stem, _dot, ending = filename.rpartition(".")
    return stem_of(stem) if ending.lower() in COMPRESSIONS and "." in stem else stem or filename


def parts_of(form: str) -> tuple[str, str | None]:
    """The format inside, and its compression: ("jsonl", "gz") of jsonl.gz, ("txt", None) of txt."""
    inner, dot, compression = form.rpartition(".")
    return (inner, compression) if dot else (form, None)
