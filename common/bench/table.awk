# What the tables and pictures of bench and growth share.

function median(list, n,   i, j, t, sorted) {
    for (i = 1; i <= n; i++) sorted[i] = list[i]
    for (i = 1; i <= n; i++)
        for (j = i + 1; j <= n; j++)
            if (sorted[j] + 0 < sorted[i] + 0) { t = sorted[i]; sorted[i] = sorted[j]; sorted[j] = t }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

# ---- SVG: reads well in light and dark ----

function begin_picture(file, width, height) {
    svg = file
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height >svg
    print "<style>svg { color-scheme: light dark } text { fill: #333 } .axis { stroke: #888; stroke-width: 1 } .limit { stroke: #888; stroke-dasharray: 4 3 }" >svg
    print ".a { fill: #9db8d2 } .b { fill: #5b8db8 } .c { fill: #1f5f8b } .d { fill: #c77d2e } .line { fill: none; stroke-width: 2 }" >svg
    print ".line.b { stroke: #1f5f8b; fill: none } .line.d { stroke: #c77d2e; fill: none } .title { font-weight: bold }" >svg
    print "@media (prefers-color-scheme: dark) { text { fill: #ddd } .a { fill: #3d5a75 } .c { fill: #8fc1e3 } .line.b { stroke: #8fc1e3 } }</style>" >svg
}
function end_picture() { print "</svg>" >svg; close(svg) }
function escape(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); return s }
function text(x, y, s, how) { printf "<text x=\"%.1f\" y=\"%.1f\"%s>%s</text>\n", x, y, (how ? " " how : ""), escape(s) >svg }
function bar(x, y, width, height, class) { printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\"/>\n", x, y - height, width, height, class >svg }
function rule(x1, y1, x2, y2, class) { printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1, x2, y2, class >svg }
function curve(points, class) { printf "<polyline points=\"%s\" class=\"line %s\"/>\n", points, class >svg }
