-- A parallel query: each process waits for a thread of its own.
SET max_parallel_workers_per_gather = 4;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CREATE TEMPORARY TABLE served AS SELECT n, rust_worker() AS by FROM numbers;
DO $$
BEGIN
    RAISE NOTICE '% processes', (SELECT count(DISTINCT by) FROM served);
    ASSERT (SELECT count(DISTINCT by) FROM served) > 1;
    ASSERT (SELECT count(*) FROM served) = (SELECT count(*) FROM numbers);
END $$;
