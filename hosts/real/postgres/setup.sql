CREATE FUNCTION rust_query(text) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_try(text) RETURNS text LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_leave(text) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_panic(text) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_nest(integer) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_wait(integer) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_wait_interruptibly(integer) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_worker() RETURNS bigint LANGUAGE c STRICT PARALLEL SAFE AS 'upcall_host';
CREATE FUNCTION rust_check_stack(integer) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';
CREATE FUNCTION rust_state(integer) RETURNS bigint LANGUAGE c STRICT AS 'upcall_host';

-- Returns the code and the message of a query's error.
CREATE FUNCTION error_of(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN 'none';
EXCEPTION WHEN query_canceled OR OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Returns the resident memory of this process, in KiB.
CREATE FUNCTION resident() RETURNS bigint LANGUAGE sql AS
    $$ SELECT split_part(pg_read_file('/proc/self/statm'), ' ', 2)::bigint * 4 $$;

CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n;
ANALYZE numbers;
