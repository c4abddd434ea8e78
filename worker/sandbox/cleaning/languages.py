"""The language of a text, as py3langid 0.4 tells it. Loading its model takes a second or two and 130 MB of memory."""

from py3langid.langid import MODEL_FILE
from py3langid.langid import LanguageIdentifier as Model

MIN_LETTERS = 20  # of a text whose language can be told
IDENTIFIED_CHARACTERS = 5_000  # of a text: more of it says nothing new


class LanguageIdentifier:
    """Ranks the languages of `recipe.LANGUAGES` for texts."""

    def __init__(self) -> None:
        self._model = Model.from_model_file(MODEL_FILE, norm_probs=True)

    def rank(self, text: str) -> list[tuple[str, float]]:
        """Languages with the probability that a text is in them, the likeliest first. Empty for a text of fewer than
        MIN_LETTERS letters.
        """
        text = text[:IDENTIFIED_CHARACTERS]
        if sum(map(str.isalpha, text)) < MIN_LETTERS:
            return []
        return [(language, float(share)) for language, share in self._model.rank(text)]
