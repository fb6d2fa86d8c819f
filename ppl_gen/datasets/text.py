"""Text."""

from ppl_gen.datasets.core import Dataset, read_table


def load_ecclesiastes() -> Dataset:
    """The book Ecclesiastes in the Authorised Version of 1611: 222 verses, 28 thousand characters.

    Returns
    -------
    Dataset
        Columns chapter, verse and text; no target.

    Examples
    --------
    >>> book = load_ecclesiastes().frame
    >>> book["text"][1]
    'Vanity of vanities, saith the Preacher, vanity of vanities; all is vanity.'

    Its characters as a Markov chain, each depending on the five before it:

    >>> from ppl_gen import MarkovChain
    >>> text = MarkovChain(order=5, smoothing="kneser-ney", random_state=0)
    >>> text = text.fit(book["text"].tolist())
    >>> (drawn,) = text.sample(length=60, given="For what hath man ")
    >>> len(drawn)
    60
    """
    return Dataset(
        name="ecclesiastes",
        frame=read_table("ecclesiastes"),
        target=None,
        description="Ecclesiastes in English, a row a verse, as it was translated in 1611.",
        source="the King James Version; from Debian's package bible-kjv-text 4.38",
        licence="public domain (printing is the Crown's privilege in the United Kingdom)",
    )
