# One line about a request: its phase, the step it is at and what that waits for, and each pod's role and served certificate.
def pod: (.name | sub(".*-"; "")) + ":" + (.role // "away") + "/"
  + (if .servingSerial then ".." + .servingSerial[-6:] else "plain" end)
  + (if .restarted then "*" else "" end);
([.status.steps[]? | select(.finishedAt | not)] | last) as $step
| (.status.phase // "Pending") as $phase
| (if $step then "\($step.name): \($step.message)"
   else ([.status.conditions[]? | select(.type == "Pending" and .status == "True").message] | last // "") end) as $text
| "\($phase)  \($text)  [\([.status.pods[]? | pod] | join(" "))]"
