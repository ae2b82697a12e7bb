package offset

// Finished lists what a commit says is finished above it, ascending: for whoever watches a group without belonging to it.
// Metadata that is not a tracker's lists nothing.
func Finished(committed int64, metadata string) []Run { return decode(committed, metadata) }
