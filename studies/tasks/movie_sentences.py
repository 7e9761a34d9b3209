"""Sentences from film reviews with the mean of 20 people's valence, as two classes.

The ground truth of Hutto & Gilbert, *VADER: a parsimonious rule-based model for sentiment analysis
of social media text*, ICWSM 2014: 10,605 snippets scored from -4 to 4. Scores with
|valence| < 0.5 are left out; the sign is the class. The classes are nearly even (49.6% positive).
"""

from collections.abc import Sequence
from pathlib import Path

from studies.archives import Archive, Member
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Row

MIN_VALENCE = 0.5
FILE = "movieReviewSnippets_GroundTruth.txt"

ARCHIVE = Archive(
    package="vaderSentiment",
    version="0.5",
    filename="vaderSentiment-0.5.zip",
    size=2_448_964,
    sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    members=(
        Member(
            source=(
                "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz",
                f"hutto_ICWSM_2014/{FILE}",
            ),
            target=FILE,
            size=1_383_098,
            sha256="c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
        ),
    ),
)


class MovieSentences(PackagedTask):
    """Two classes, sentences of film reviews."""

    name = "movie_sentences"
    kind = "text_classification"
    archives = (ARCHIVE,)
    licence = "MIT (package); the snippets are from Rotten Tomatoes"
    source = f"{FILE}, |valence| >= {MIN_VALENCE}"
    labels = ("negative", "positive")
    rows = 10_070
    default_rows = (512, 400, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Lines `number <tab> valence <tab> snippet`."""
        text = (folders[0] / FILE).read_bytes().decode("utf-8")
        rows: list[AnyRow] = []
        for line in text.removesuffix("\n").split("\n"):  # splitlines would cut inside snippets
            _, valence, snippet = line.rstrip("\r").split("\t", 2)
            if abs(float(valence)) >= MIN_VALENCE:
                rows.append(Row(snippet, self.labels[float(valence) > 0]))
        return rows
