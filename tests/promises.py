"""What may go wrong, what is promised, which tests keep it, and what is not promised: one table, for the suite, which counts the cases that pass,
and for the page about reliability, which shows them. A test is named by file and function; `*` stands for anything."""
import json
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

COUNTS = Path(__file__).with_name("promises.json")      # what the last whole run and the last long run counted

class Promise(NamedTuple):
    fault: str
    promise: str
    tests: tuple[str, ...]
    but: str = ""           # what is not promised

PROMISES = dict(
    R1=Promise("killed (`kill -9`) at a random instant of training", "`resume` ends with the same weights, optimiser and rows, none twice, none missing",
               ("test_reliability_kill::test_killed_at_any_instant", "test_labs::test_killed_at_three_places*", "test_life::test_whatever_happens*"),
               "on another machine, with another number of threads or other versions the last bits may differ"),
    R2=Promise("the same with two processes and random augmentation", "identical", ("test_labs::test_two_processes_killed_at_any_instant",)),
    R3=Promise("killed inside a save: before the write, in it, before and after the rename, between last and best",
               "the newest whole checkpoint is used, leftovers are swept away", ("test_reliability_kill::test_killed_inside*",)),
    R4=Promise("one of two training processes killed", "it begins again from the checkpoint, or both end within 30 s; never a hang",
               ("test_reliability_kill::test_one_of_two_processes_killed*",)),
    R5=Promise("SIGTERM, Ctrl-C, an interrupted notebook cell", "a checkpoint within one step; the run is `interrupted`",
               ("test_reliability_kill::test_asked_to_stop*", "test_reliability_kill::test_two_processes_asked_to_stop", "test_reliability_kill::test_asked_twice",
                "test_reliability_kill::test_interrupted_notebook_cell", "test_experiments::test_an_interrupted_run_resumes*", "test_life::test_whatever_happens*")),
    R6=Promise("a checkpoint cut off, or one bit of it flipped", "refused by name, the other one is used, never loaded silently",
               ("test_reliability_files::test_damaged_checkpoint", "test_reliability_files::test_damaged_resume")),
    R7=Promise("a checkpoint made to harm: pickles, tricks of archives, wrong shapes, huge headers", "refused, nothing executed, memory bounded",
               ("test_reliability_files::test_hostile_checkpoint", "test_reliability_files::test_the_harmful_object_does_harm")),
    R8=Promise("NaN or infinity in loss, gradient or data", "stop or skip by policy, an event with step and samples, the best checkpoint stays",
               ("test_reliability_loop::test_not_finite", "test_reliability_loop::test_never_finite", "test_reliability_loop::test_validation_not_finite")),
    R9=Promise("disk full, folder read-only, an error of the disk", "the error names path and free space, the last checkpoint is intact",
               ("test_reliability_files::test_disk_fails", "test_reliability_files::test_file_too_large", "test_life::test_whatever_happens*")),
    R10=Promise("two runs in one folder", "one owner; the other leaves naming it; a dead owner's lock is taken over",
                ("test_reliability_runs::test_one_owner", "test_reliability_runs::test_orphans*", "test_reliability_runs::test_race", "test_reliability_runs::test_an_owner*",
                 "test_reliability_runs::test_a_forked_child*", "test_reliability_runs::test_same_second"), "clocks of two hosts that differ by more than a minute"),
    R11=Promise("names of runs such as `../x`, absolute, NUL, 300 characters", "refused or contained",
                ("test_reliability_runs::test_*names_are_contained", "test_reliability_runs::test_lab_is_contained")),
    R12=Promise("a configuration that names callables, recursion, huge lists", "refused before anything is imported",
                ("test_documents::test_nothing_*", "test_documents::test_yaml_is_bounded", "test_documents::test_numbers_that_ask*")),
    R13=Promise("bars with NaN, infinities, negative prices, high below low, times that repeat or run back, gaps, wrong columns, torn files",
                "an error with row and column, or a documented repair", ("test_bars::*", "test_joined_files::*", "test_clock::*", "test_volume::*", "test_sanity::*"),
                "prices that are wrong and look right"),
    R14=Promise("everything after t is changed", "features, scalers, labels, regimes and splits at or before t stay bit for bit",
                ("test_leaks::*causal*", "test_leaks::*before_t*", "test_leaks::*fit*", "test_engineers::*causal*", "test_quant_classics::*later*", "test_regimes::*causal*")),
    R15=Promise("six planted leaks", "the audit catches six of six", ("test_leaks::*planted*", "test_leaks::*fill_from_the_future*"), "leaks inside a user's own data"),
    R16=Promise("a store with a flipped bit, a missing or superfluous file, another manifest, half of it", "all of it is noticed; a store appears only whole",
                ("test_store::test_a_harmed_store", "test_store::test_harm_after_opening", "test_store::test_an_index_that_lies", "test_store::test_another_layout")),
    R17=Promise("eight readers, forked and spawned", "no hang, equal bytes", ("test_store::test_eight_readers",)),
    R18=Promise("read while it is written", "the old whole or the new whole", ("test_store::test_read_during_write", "test_store::test_an_old_reader*", "test_life::test_a_publication*")),
    R19=Promise("sweep: a worker, the driver or everything is killed", "every run ends `done` once; going on takes nothing but the folder",
                ("test_sweeps::test_whatever_is_killed*", "test_sweeps::test_a_worker_of_a_cluster*", "test_tasks::test_whoever_is_killed*", "test_tasks::*cluster_is_killed*",
                 "test_cluster::*")),
    R20=Promise("report: the kernel dies, a time-out, a bad parameter, a failing cell", "what was executed stays, an event is written, the exit code is not 0, no kernel is left",
                ("test_labs::test_a_report_that_breaks", "test_experiments::test_a_misspelt_parameter*")),
    R21=Promise("the tracker has no key, no network, or fails", "the result of a run without it, and one warning", ("test_reliability_loop::test_tracker_fails",)),
    R22=Promise("one configuration twice, in a notebook and typed", "equal bits; one and two processes within a stated tolerance",
                ("test_reliability_loop::test_twice*", "test_reliability_loop::test_one_and_two*", "test_experiments::test_command_line_and_notebook*",
                 "test_experiments::test_one_and_two*", "test_labs::test_two_runs_are_equal*", "test_labs::test_the_report_is_the_run")),
    R23=Promise("every formula beside an independent library", "1e-10 in double precision for scores, 1e-6 elsewhere",
                ("test_metrics::*reference*", "test_metrics::test_scoringrules*", "test_metrics::test_properscoring", "test_kalman::*", "test_performance::*", "test_trades::*",
                 "test_rational::*", "test_joint::*")),
    R24=Promise("10 000 steps", "memory grows by less than 2 %; no open file, thread or temporary file is left", ("test_reliability_loop::test_ten_thousand_steps",)),
    R25=Promise("a tampered tree model, scaler or table of settings", "refused, naming what is wrong",
                ("test_quant_trees::test_a_file_with*", "test_quant_trees::test_forged*", "test_quant_trees::test_any_arrays*", "test_quant_classics::test_forged*",
                 "test_documents::test_a_tampered_model", "test_documents::test_what_was_learnt*", "test_documents::test_a_state_that_lacks*", "test_leaks::test_a_broken_state*")),
    R26=Promise("files of every earlier version", "they load, or say what to do", ("test_corpus::*",), "versions before the first release"),
    R27=Promise("a document whose digest is right and whose contents are not", "a sentence that names file and field; nothing is read from the environment", ("test_documents::*",)),
    R28=Promise("the data of a run changed between start and resume", "refused, naming the file", ("test_same_data::*", "test_fingerprint::*")),
    R29=Promise("input bombs: compressed, endless, wide, deep", "a sentence, within bounds of memory and time", ("test_bars::test_files_without_an_end", "test_bars::test_a_pipe*", "test_bars::test_too_many_columns", "test_bars::test_a_small_parquet*",
                                                                                                                         "test_documents::test_one_layer*")),
    R30=Promise("the output is gone: closed, full, ASCII, a pipe that ends", "the run is `done`", ("test_cli::test_output*",)),
    R31=Promise("a power cut: what was not synced is lost", "the newest whole checkpoint and the facts agree", ("test_reliability_power::*",)),
    R32=Promise("every setting of every lab at another valid value", "its effect changes, or it is refused: none is ignored", ("test_settings::*",)))

def promises_of(
    test: str,              # its id, tests/test_bars.py::test_fault[nan]
) -> list[str]:
    "The promises that a test keeps."
    return kept_by(function_of(test))

def function_of(test: str) -> str:
    "File and function of a test, test_bars::test_fault."
    path, _, rest = test.partition("::")
    return f"{Path(path).stem}::{rest.partition('[')[0].partition('@')[0]}"

@cache
def kept_by(name: str) -> list[str]: return [key for key, p in PROMISES.items() if any(fnmatchcase(name, pattern) for pattern in p.tests)]

def read_counts() -> dict: return json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}

def long_run(
    key: str,               # of a promise
    counts: dict,           # what was counted, `read_counts()`
) -> str:                   # cases, the days on which they were tried and their seeds; empty where no long run was
    "What long runs have tried of a promise."
    found = [counts["long"][name] for name in counts.get("long", {}) if key in kept_by(name)]
    if not found: return ""
    days, seeds = sorted({f["day"] for f in found}), [f["seeds"] for f in found if "seeds" in f]
    said = f"{sum(f['cases'] for f in found):,}, {' to '.join(days[::len(days) - 1 or 1])}"
    return said + (f", seeds {min(a for a, _ in seeds)} to {max(b for _, b in seeds):,}" if seeds else "")
