/* Nothing: the bare call that others are compared with. */
int bench_bare(void) { return 0; }
