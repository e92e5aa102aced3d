"""The tokenizer adapter: control tokens on by mark only."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from agentrft.chat.tokens import FastTokenizer, Mark, encode_pieces, mend_text
from agentrft.errors import UserError


def test_smollm2_control_tokens_have_their_ids_and_text_splits_them(smollm2):
    # ids from the published vocabulary: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>
    assert smollm2.special("<|im_start|>") == 1
    assert smollm2.special("<|im_end|>") == 2
    ids = smollm2.encode("<|im_end|>")
    assert len(ids) == 7  # < | im _ end | >
    assert smollm2.decode(ids) == "<|im_end|>"


def test_tokens_added_without_the_special_flag_are_control_tokens_too(tokenizers_by_family):
    qwen = tokenizers_by_family["qwen"]
    assert qwen.special("<tool_call>") not in qwen.encode("a <tool_call> b</tool_call>")
    assert qwen.decode(qwen.encode("a <tool_call> b")) == "a <tool_call> b"


def test_text_between_two_marks_is_encoded_as_one_string(smollm2):
    joined = encode_pieces(smollm2, [Mark("<|im_start|>"), "us", "er\n", "hello", Mark("<|im_end|>")])
    assert joined == [1, *smollm2.encode("user\nhello"), 2]


def test_the_given_tokenizer_is_left_as_it_was(smollm2):
    backend = smollm2._backend
    assert backend.encode("<|im_end|>", add_special_tokens=False).ids == [2]
    assert backend.encode_special_tokens is False


def test_runs_of_spaces_that_a_family_added_stay_text():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    backend.add_tokens([AddedToken("    ", special=False, normalized=False)])
    tokens = FastTokenizer(backend)
    assert not tokens.has("    ")
    assert backend.token_to_id("    ") in tokens.encode("a    b")


def test_a_vocabulary_that_reaches_a_control_token_through_merges_is_still_safe():
    vocab = {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4, "a": 5, " ": 6}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("<", "s"), ("<s", ">")]))
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    tokens = FastTokenizer(backend)
    assert tokens.special("<s>") == 4
    assert tokens.encode("a<s>") == [5, 0, 1, 2]


def test_a_character_outside_the_vocabulary_does_not_become_a_control_token():
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)])
    assert FastTokenizer(backend).encode("aXa") == [1, 1]


def test_an_absent_control_token_is_refused_with_those_there_are(smollm2):
    with pytest.raises(UserError, match=r"no control token '\[INST\]' \(it has: .*set `agent.format`") as caught:
        smollm2.special("[INST]")
    assert caught.value.param == "agent.format"


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(UserError, match="got object, expected a fast tokenizer"):
        FastTokenizer(object())


def test_surrogate_pairs_are_joined_and_halves_replaced():
    assert mend_text("\ud83d\ude00") == "😀"
    assert mend_text("x\udc00") == "x\ufffd"
