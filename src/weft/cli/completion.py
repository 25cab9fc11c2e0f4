"""`weft completion`: the scripts that make shells complete weft's commands.

All three ask the program itself: with `_WEFT_COMPLETE` set, weft takes the line up to the cursor
from `_WEFT_COMPLETE_LINE` and prints the words that fit, one a line, with a tab and a word about
each where there are any. What it prints is data to the scripts; none evaluates it. Which words fit
is known to the commands and their options; names of objects come from the agent (`completing.py`).
"""

from __future__ import annotations

import enum
import os
import shlex
from typing import Annotated, Any

import typer

from weft.cli.output import echo

VARIABLE, LINE = "_WEFT_COMPLETE", "_WEFT_COMPLETE_LINE"
WORDS = "words"

BASH = r"""# completion of weft for bash 4.4 and later; made by `weft completion bash`
_weft_completion() {
    local line=${COMP_LINE:0:COMP_POINT} typed head='' mark start answer
    typed=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r answer; do
        COMPREPLY+=("${answer%%$'\t'*}")
    done < <(_WEFT_COMPLETE=words _WEFT_COMPLETE_LINE=$line "$1" 2>/dev/null)
    # readline takes ':' and '=' for the end of a word: only what follows them is replaced
    for mark in ':' '='; do
        if [[ $COMP_WORDBREAKS == *$mark* && $typed == *$mark* ]]; then
            start=${typed%"${typed##*$mark}"}
            (( ${#start} > ${#head} )) && head=$start
        fi
    done
    COMPREPLY=("${COMPREPLY[@]#"$head"}")
}
complete -o default -F _weft_completion weft
"""

ZSH = r"""#compdef weft
# completion of weft for zsh; made by `weft completion zsh`
_weft() {
    local -a found
    local answer word
    while IFS= read -r answer; do
        word=${answer%%$'\t'*}
        word=${word//:/\\:}
        if [[ $answer == *$'\t'* ]]; then
            found+=("$word:${answer#*$'\t'}")
        else
            found+=("$word")
        fi
    done < <(_WEFT_COMPLETE=words _WEFT_COMPLETE_LINE="${(j: :)words[1,CURRENT]}" \
        $words[1] 2>/dev/null)
    if (( $#found )); then
        _describe weft found
    else
        _files
    fi
}
# read as a function of $fpath it is to complete at once; sourced, to be known
if [[ $funcstack[1] == _weft ]]; then
    _weft "$@"
else
    compdef _weft weft
fi
"""

FISH = r"""# completion of weft for fish 3; made by `weft completion fish`
function __weft_complete
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    set -l found (env _WEFT_COMPLETE=words _WEFT_COMPLETE_LINE="$line" weft 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline --cut-at-cursor --current-token)
    end
end
complete --command weft --no-files --arguments '(__weft_complete)'
"""


class Shell(enum.StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS = {Shell.BASH: BASH, Shell.ZSH: ZSH, Shell.FISH: FISH}


def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", show_default=False)],
) -> None:
    """Print the completion script of a shell.

    It completes commands, options, kinds, reasons, and the names of what there is now: objects,
    pods, namespaces, addresses. Those are asked of the agent while you type, for a second at most;
    without an agent there are none. The second line of the examples for a shell installs it for all
    users; bash reads that directory where the package bash-completion is installed.

    \b
    Examples:
      source <(weft completion bash)      for this shell only
      weft completion bash > /usr/local/share/bash-completion/completions/weft
      source <(weft completion zsh)       after compinit
      weft completion zsh > /usr/local/share/zsh/site-functions/_weft
      weft completion fish | source
      weft completion fish > /etc/fish/completions/weft.fish
    """
    echo(SCRIPTS[shell].rstrip("\n"))


def answer(command: Any) -> None:
    """Print what fits the line; nothing where the line makes no sense, or for the script of another
    release."""
    if os.environ.get(VARIABLE) != WORDS:
        return
    from typer._completion_classes import BashComplete

    words = split(os.environ.get(LINE, ""))
    known = BashComplete(command, {}, "weft", VARIABLE)
    for item in known.get_completions(words[1:-1], words[-1]):
        if item.type == "plain":  # for files the shell itself knows better
            about = " ".join((item.help or "").split())
            echo(f"{item.value}\t{about}" if about else str(item.value))


def split(line: str) -> list[str]:
    """The words of a line up to the cursor, the last of them the one that is being typed: "" after
    a blank. Quotes need not be closed yet."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # an open quote: what it holds so far
        words.append(lexer.token)
        return words
    if not words or line[-1:].isspace():
        words.append("")
    return words
