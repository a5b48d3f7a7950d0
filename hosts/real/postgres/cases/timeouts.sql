-- statement_timeout ends an interruptible wait at once, and a plain wait only after its end.
CREATE FUNCTION times_out(query text, OUT error text, OUT milliseconds double precision) LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := clock_timestamp();
BEGIN
    error := error_of(query);
    milliseconds := extract(epoch FROM clock_timestamp() - began) * 1000;
END $$;
SET statement_timeout = '100ms';
CREATE TEMPORARY TABLE interruptible AS SELECT * FROM times_out('SELECT rust_wait_interruptibly(100000)');
CREATE TEMPORARY TABLE plain AS SELECT * FROM times_out('SELECT rust_wait(300)');
RESET statement_timeout;
DO $$
DECLARE
    expected text := '57014 canceling statement due to statement timeout';
BEGIN
    ASSERT (SELECT error = expected AND milliseconds < 10000 FROM interruptible), (SELECT interruptible FROM interruptible);
    ASSERT (SELECT error = expected AND milliseconds >= 300 FROM plain), (SELECT plain FROM plain);
    ASSERT rust_wait_interruptibly(1) = 1 AND rust_wait(1) = 1 AND rust_state(0) = 0;
END $$;
