r"""MT-Bench: answers to two-turn questions written to a file, then graded by a judging model.

Zheng et al., *Judging LLM-as-a-judge with MT-bench and chatbot arena*, NeurIPS 2023. Questions come
in FastChat's format (`question.jsonl`); the grading prompt asks for the same `[[rating]]` from
1 to 10 but is worded by us, so compare grades of one judge and prompt only.

    python -m studies.tasks.mt_bench answer --backbone NAME --questions FILE --out answers.jsonl
    python -m studies.tasks.mt_bench judge --questions FILE --answers answers.jsonl --model NAME \
        --out grades.jsonl
    python -m studies.tasks.mt_bench compare --questions FILE --grades lora=grades.jsonl \
        --grades lr-lora=other.jsonl

`judge` ends with the means, of all and of each of the questions' categories; `compare` sets models
side by side, category by category.
"""
