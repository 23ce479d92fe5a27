# From the figures of bench, sorted: its table, and its picture.

{
    key = $1 FS $2
    if (!(key in count)) order[++keys] = key
    i = ++count[key]
    figure[key, i] = $3
    if ($4 != "") { limit[key, i] = $4; ratio[key, i] = $3 / $4; has[key] = 1 }
}

function middle(values, key,   i, list) {
    for (i = 1; i <= count[key]; i++) list[i] = values[key, i]
    return median(list, count[key])
}

# Bars for the lessons that have these figures, beside a line for pgbench.
function panel(x, title, what, names, named,   i, k, key, height, left, unit) {
    text(x, 20, title, "class=\"title\"")
    left = x
    unit = 110                                  # as high as pgbench; less where a bar would not fit
    for (i = 2; i <= 7; i++)
        for (k = 1; k <= named; k++) {
            key = "0" i FS names[k]
            if (key in count && unit * middle(ratio, key) > 165) unit = 165 / middle(ratio, key)
        }
    for (i = 2; i <= 7; i++) {
        for (k = 1; k <= named; k++) {
            key = "0" i FS names[k]
            if (!(key in count)) continue
            height = unit * middle(ratio, key)
            bar(left, 215, 16, height, substr(named == 2 ? "ac" : "abc", named == 1 ? 3 : k, 1))
            text(left + 8, 211 - height, sprintf("%.1f", middle(ratio, key)), "text-anchor=\"middle\" font-size=\"9\"")
            left += 18
            drawn = i
        }
        if (drawn == i) { text(left - 9 * named, 232, "0" i, "text-anchor=\"middle\""); left += 12 }
    }
    rule(x - 4, 215, left, 215, "axis")
    rule(x - 4, 215 - unit, left, 215 - unit, "limit")
    text(x, 252, what)
}

# A row for each thing that was measured, a column for each lesson: the figure, and how many times
# pgbench's it is.
function table(   n, i, w, key, what, at, bare, seen, cells, lessons) {
    n = split("an insert of yours each, /s|submit --file, /s|no-op tasks, a process each, /s|no-op tasks, 1 slot, /s" \
        "|no-op tasks, 4 slots, /s|no-op tasks, 16 slots, /s|durable steps, 1 slot, /s|durable steps, 16 slots, /s" \
        "|ten steps end to end, median, ms|orders with two children, 16 slots, /s|children of one parent, 16 slots, /s", what, "|")
    for (w = 1; w <= n; w++) at[what[w]] = w
    for (i = 1; i <= keys; i++) {
        split(order[i], part, FS)
        if (part[1] == "-") continue
        if (!(part[1] in seen)) { seen[part[1]] = 1; lesson[++lessons] = part[1] }
        if (!(part[2] in at)) { what[++n] = part[2]; at[part[2]] = n }
        if (has[order[i]]) bare[part[2]] = middle(limit, order[i])
    }
    print "| pgbench alone | |"
    print "| --- | ---: |"
    for (i = 1; i <= keys; i++) {
        split(order[i], part, FS)
        if (part[1] == "-") printf "| %s | %s |\n", part[2], middle(figure, order[i])
    }
    printf "\n| what | pgbench |"
    for (i = 1; i <= lessons; i++) printf " %s |", lesson[i]
    printf "\n| --- | ---: |"
    for (i = 1; i <= lessons; i++) printf " ---: |"
    print ""
    for (w = 1; w <= n; w++) {
        cells = ""
        for (i = 1; i <= lessons; i++) {
            key = lesson[i] FS what[w]
            cells = cells (key in count ? " " middle(figure, key) : "") (has[key] ? sprintf(" (%.2f)", middle(ratio, key)) : "") " |"
        }
        if (cells ~ /[0-9]/) printf "| %s |%s |%s\n", what[w], what[w] in bare ? " " bare[what[w]] : "", cells
    }
}

END {
    table()

    begin_picture(picture, 860, 262)
    tasks[1] = "no-op tasks, 1 slot, /s"; tasks[2] = "no-op tasks, 4 slots, /s"; tasks[3] = "no-op tasks, 16 slots, /s"
    steps[1] = "durable steps, 1 slot, /s"; steps[2] = "durable steps, 16 slots, /s"
    bulk[1] = "submit --file, /s"
    panel(14, "No-op tasks: 1, 4, 16 slots", "dashed: a bare claim and finish of a row, as many clients", tasks, 3)
    panel(400, "Durable steps: 1, 16 slots", "dashed: insert and commit a row", steps, 2)
    panel(620, "Submit a file of tasks", "dashed: insert and commit a row, 1 client", bulk, 1)
    end_picture()
}
