# What a person waiting for pip wants to see of its output: large downloads, and how many packages are unpacked.
/Downloading .*\([0-9.]+ MB\)/ {
    megabytes = $0
    sub(/.*\(/, "", megabytes)
    if (megabytes + 0 < 20) next
    name = $0
    sub(/.*Downloading /, "", name)
    sub(/^[^ ]*\//, "", name)
    split(name, part, "-")
    printf "      downloading %s %s (%d MB)\n", part[1], part[2], megabytes
    fflush()
}
/^Installing collected packages.*,/ {
    printf "      unpacking %d packages\n", gsub(/,/, ",") + 1
    fflush()
}
