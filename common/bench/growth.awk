# From the figures of growth: its tables, and its picture.

{ count[$1, $2]++; figure[$1, $2, count[$1, $2]] = $3; if (!seen[$1, $2]++) name[$1, ++names[$1]] = $2 }

function middle(what, which,   i, list, k) {
    k = count[what, which]
    for (i = 1; i <= k; i++) list[i] = figure[what, which, i]
    return median(list, k)
}

function beside_empty(which,   i, list, k) {
    k = count["claim", which]
    for (i = 1; i <= k; i++) list[i] = figure["claim", which, i] / figure["claim", "empty", i]
    return median(list, k)
}

function tenths(tasks, one, other, of_one, of_other,   i) {
    printf "\n| of %d tasks at once | %s, /s | %s, /s |\n| --- | ---: | ---: |\n", tasks, of_one, of_other
    for (i = 1; i <= 10; i += 3) printf "| the %s tenth | %d | %d |\n", i == 1 ? "first" : i "th", middle(one, i), middle(other, i)
}

# Two rates against how much is done.
function two_curves(x, y, tasks, one, other, of_one, of_other,   i, highest, a, b) {
    text(x, y, sprintf("%d tasks at once: tasks/s", tasks), "class=\"title\"")
    for (i = 1; i <= 10; i++) {
        if (middle(one, i) > highest) highest = middle(one, i)
        if (middle(other, i) > highest) highest = middle(other, i)
    }
    for (i = 1; i <= 10; i++) {
        a = a sprintf("%.1f,%.1f ", x + 30 + 32 * i, y + 195 - 165 * middle(one, i) / highest)
        b = b sprintf("%.1f,%.1f ", x + 30 + 32 * i, y + 195 - 165 * middle(other, i) / highest)
    }
    curve(a, "b")
    curve(b, "d")
    rule(x + 30, y + 195, x + 380, y + 195, "axis")
    rule(x + 30, y + 20, x + 30, y + 195, "axis")
    text(x + 26, y + 34, highest, "text-anchor=\"end\" font-size=\"10\"")
    text(x + 380, y + 190 - 165 * middle(one, 10) / highest + 24, of_one, "text-anchor=\"end\"")
    text(x + 380, y + 190 - 165 * middle(other, 10) / highest + 24, of_other, "text-anchor=\"end\"")
    text(x + 30, y + 212, "the first tenth")
    text(x + 380, y + 212, "the last", "text-anchor=\"end\"")
}

END {
    words["empty"] = "nothing else"
    words["finished"] = finished " finished tasks"
    words["sleeping"] = sleeping " sleeping tasks"
    words["parked"] = parked " parked parents, a child each"
    words["all_of_it"] = "all of these"

    print "\n| in the table | no-op tasks, 16 slots, /s | beside the empty table |\n| --- | ---: | ---: |"
    for (i = 1; i <= names["claim"]; i++) {
        which = name["claim", i]
        printf "| %s | %d | %.2f |\n", words[which], middle("claim", which), beside_empty(which)
    }
    print "\n| events in the log | replay, ms | for each event, us |\n| ---: | ---: | ---: |"
    for (i = 1; i <= names["replay"]; i++) {
        which = name["replay", i]
        printf "| %d | %.1f | %.1f |\n", which, middle("replay", which), middle("replay", which) / which * 1000
    }
    tenths(many, "alone", "beside", "alone", "beside an old transaction")
    tenths(very_many, "minute", "seconds", "autovacuum once a minute", "every five seconds")

    begin_picture(picture, 860, 520)
    text(10, 20, "No-op tasks, 16 slots, beside the empty table", "class=\"title\"")
    for (i = 1; i <= names["claim"]; i++) {
        y = 20 + i * 34
        which = name["claim", i]
        bar(10, y + 26, 240 * beside_empty(which), 12, which == "empty" ? "a" : "b")
        text(10, y + 10, words[which])
        text(16 + 240 * beside_empty(which), y + 25, sprintf("%.2f", beside_empty(which)))
    }
    text(440, 20, "Replay: ms for a log of so many events", "class=\"title\"")
    most = name["replay", names["replay"]]
    top = middle("replay", most)
    for (i = 1; i <= names["replay"]; i++) {
        which = name["replay", i]
        x = 470 + 330 * log(which) / log(most)
        y = 215 - 160 * (log(middle("replay", which)) - log(0.1)) / (log(top) - log(0.1))
        points = points sprintf("%.1f,%.1f ", x, y)
        text(x, y - 8, sprintf("%.1f", middle("replay", which)), "text-anchor=\"middle\"")
        text(x, 232, which, "text-anchor=\"middle\"")
    }
    curve(points, "b")
    rule(470, 215, 820, 215, "axis")
    rule(470, 40, 470, 215, "axis")
    text(470, 250, "(both axes by powers of ten)")
    two_curves(10, 290, many, "alone", "beside", "alone", "beside an old transaction")
    two_curves(440, 290, very_many, "seconds", "minute", "autovacuum every 5 s", "every minute")
    end_picture()
}
