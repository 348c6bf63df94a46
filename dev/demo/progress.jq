# A request as lines of words between tabs: each step with its second and whether it is over, then the pods, then the phase.
def pod: (.name | sub(".*-"; "")) + " " + (.role // "away")
  + (if .servingSerial then " .." + .servingSerial[-6:] else "" end)
  + (if .restarted then "*" else "" end);
([.status.steps[]?.startedAt | values | fromdate] | min // 0) as $began
| (.status.steps[]? | ["step", .name, ((.startedAt | values | fromdate) // $began) - $began, (.finishedAt != null), .message]),
  ["pods", ([.status.pods[]? | pod] | join(" | "))],
  (.status.conditions[]? | select(.type == "Pending" and .status == "True") | ["step", "Pending", 0, false, .message]),
  ["phase", .status.phase // ""]
| @tsv
