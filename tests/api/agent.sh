#!/usr/bin/env bash
# An agent in shell: delete one path after a person said yes. URL, KEY and RUN come from outside.
set -euo pipefail
api=$URL/api/v1
ask() { # ask METHOD PATH [JSON]: the answer's body; a refusal ends the script
  curl --silent --show-error --fail-with-body --retry 3 -X "$1" "$api$2" -H "Authorization: Bearer $KEY" \
    -H "Content-Type: application/json" -H "Run-Fence: ${fence:-0}" ${3:+--data "$3"}
}
get() { jq -r "$1" <<<"$answer"; }

while true; do
  # Take the run. No answer: it is not due yet (a person has not decided) or somebody else drives it.
  worker='{"worker": {"name": "shell"}, "agents": {"cleaner": {"name": "cleaner", "version": "1"}}, "wait_s": 20}'
  answer=$(ask POST "/runs/$RUN/claim" "$worker")
  [ -n "$answer" ] || continue
  fence=$(get .fence)
  path=$(get .input.path)

  # Begin the step, or ask how it stands. The service answers whether it may be called.
  answer=$(ask POST "/runs/$RUN/steps" "$(jq -n --arg path "$path" '{name: "delete", kind: "tool",
    effect: "destructive", timeout_s: 1, payload: {path: $path},
    question: {title: "Delete \($path)?", tool: "delete", args: {path: $path}, schema: {type: "object"}}}')")
  seq=$(get .seq)
  case $(get .action) in
    execute)
      path=$(get '.args.path // empty')
      echo "$(get .key) $path" >>"$LEDGER" # the call: send the key along as Idempotency-Key
      while [ -e "$LEDGER.hang" ]; do sleep 0.1; done
      ask PUT "/runs/$RUN/steps/$seq" "$(jq -n --arg out "deleted $path" '{output: $out}')" >/dev/null
      ask POST "/runs/$RUN/complete" "$(jq -n --arg out "deleted $path" '{output: $out}')" >/dev/null
      exit 0 ;;
    replay) ask POST "/runs/$RUN/complete" "$(jq -n --argjson out "$(get .output)" '{output: $out}')" >/dev/null; exit 0 ;;
    wait) ask GET "/runs/$RUN/steps/$seq?wait=20" >/dev/null ;; # the run was given back; claim it again afterwards
    rejected) ask POST "/runs/$RUN/fail" "$(jq -n --arg why "$(get .message)" '{type: "Rejected", message: $why}')" >/dev/null; exit 2 ;;
    doubt) echo "The call is in doubt: a person has to settle it."; exit 3 ;;
    *) echo "unexpected: $answer"; exit 1 ;;
  esac
done
