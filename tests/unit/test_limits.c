/* What one address, user or device may do: buckets, places, who a client behind proxies is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/gate.h"

#define PLACES 64

static limiter_place places[PLACES];

static limiter table(allowance l) {
    memset(places, 0, sizeof places);
    return (limiter){places, PLACES, l};
}

/* All in one set, however many sets there are. */
static const unsigned char *key(int number) {
    static unsigned char k[LIMITER_KEY_BYTES];
    memset(k, 0, sizeof k);
    k[8] = (unsigned char)number;
    return k;
}

static void a_bucket_empties_and_fills(void **state) {
    (void)state;
    limiter l = table((allowance){.rate = 10, .burst = 30});
    limiter_place *p = limiter_find(&l, key(1), 1000);
    int64_t wait_ms = 0;
    for (int i = 0; i < 30; i++) {
        assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1000, &wait_ms), LIMITER_IN);
    }
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1000, &wait_ms), LIMITER_TOO_FAST);
    assert_int_equal(wait_ms, 100);
    assert_int_equal(limiter_enter(&l.allowed, p, 5, false, 1050, &wait_ms), LIMITER_TOO_FAST);
    assert_int_equal(wait_ms, 450);
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1099, &wait_ms), LIMITER_TOO_FAST);
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1100, &wait_ms), LIMITER_IN);
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1100, &wait_ms), LIMITER_TOO_FAST);
    /* full again, and no more than full, after a day */
    int taken = 0;
    while (limiter_enter(&l.allowed, p, 1, false, 86400000, &wait_ms) == LIMITER_IN) {
        taken++;
    }
    assert_int_equal(taken, 30);
    /* a clock that goes back gives nothing and takes nothing */
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 5, &wait_ms), LIMITER_TOO_FAST);
    /* more than ever gathers is taken when it is full: no request waits for ever */
    assert_int_equal(limiter_enter(&l.allowed, p, 1000, false, 2 * 86400000, &wait_ms), LIMITER_IN);
}

static void what_waits_as_long_as_it_was_told_comes_in(void **state) {
    (void)state;
    for (int64_t rate = 1; rate < 2000; rate = rate * 3 + 1) {
        limiter l = table((allowance){.rate = rate, .burst = rate * 10});
        limiter_place *p = limiter_find(&l, key(1), 7);
        int64_t now_ms = 7, wait_ms = 0;
        limiter_charge(&l.allowed, p, rate * 10, now_ms);
        for (int64_t cost = 1; cost <= rate * 10; cost = cost * 2 + 1) {
            assert_int_equal(limiter_enter(&l.allowed, p, cost, false, now_ms, &wait_ms),
                             LIMITER_TOO_FAST);
            now_ms += wait_ms;
            assert_int_equal(limiter_enter(&l.allowed, p, cost, false, now_ms, &wait_ms),
                             LIMITER_IN);
        }
    }
}

static void a_charge_leaves_a_bounded_debt(void **state) {
    (void)state;
    limiter l = table((allowance){.rate = 10, .burst = 100});
    limiter_place *p = limiter_find(&l, key(1), 1000);
    int64_t wait_ms = 0;
    for (int i = 0; i < 1000; i++) {
        limiter_charge(&l.allowed, p, 10, 1000);
    }
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1000, &wait_ms), LIMITER_TOO_FAST);
    assert_int_equal(wait_ms, 10100);
}

static void only_so_many_are_inside(void **state) {
    (void)state;
    limiter l = table((allowance){.rate = 0, .burst = 1, .inside_max = 3});
    limiter_place *p = limiter_find(&l, key(1), 1);
    int64_t wait_ms = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(limiter_enter(&l.allowed, p, 1, true, 1, &wait_ms), LIMITER_IN);
    }
    assert_int_equal(limiter_enter(&l.allowed, p, 1, true, 1, &wait_ms), LIMITER_TOO_MANY);
    assert_true(wait_ms > 0);
    assert_int_equal(limiter_enter(&l.allowed, p, 1, false, 1, &wait_ms), LIMITER_IN);
    limiter_leave(p);
    assert_int_equal(limiter_enter(&l.allowed, p, 1, true, 1, &wait_ms), LIMITER_IN);
}

static void places_are_given_away_only_when_they_say_nothing(void **state) {
    (void)state;
    limiter l = table((allowance){.rate = 10, .burst = 10, .inside_max = 2});
    int64_t wait_ms = 0;
    limiter_place *busy[LIMITER_WAYS];
    for (int i = 0; i < LIMITER_WAYS; i++) {
        busy[i] = limiter_find(&l, key(i), 1000);
        assert_int_equal(limiter_enter(&l.allowed, busy[i], 1 + i, true, 1000, &wait_ms),
                         LIMITER_IN);
        for (int j = 0; j < i; j++) {
            assert_ptr_not_equal(busy[i], busy[j]);
        }
    }
    assert_null(limiter_find(&l, key(100), 1000)); /* all have something under way */
    limiter_leave(busy[5]);
    limiter_leave(busy[2]);
    assert_ptr_equal(limiter_find(&l, key(100), 1000), busy[2]); /* the fuller of the two */
    assert_int_equal(busy[2]->milli, 10000);
    assert_ptr_equal(limiter_find(&l, key(5), 1000), busy[5]); /* still itself, and has paid */
    assert_int_equal(busy[5]->milli, 4000);
}

/* ---- addresses ---- */

static address of(const char *text) {
    address a;
    assert_true(address_parse(slice_of(text), &a));
    return a;
}

static network_list networks(const char *text) {
    network_list list;
    slice bad;
    assert_true(networks_parse(text, &list, &bad));
    return list;
}

static void networks_have_their_addresses(void **state) {
    (void)state;
    network_list list = networks("198.0.0.0/8, 192.0.2.7 ,2001:db8::/33,::1");
    static const char *const in[] = {"198.255.0.1", "192.0.2.7", "::ffff:198.0.0.1",
                                     "2001:db8:7fff::1", "::1"};
    static const char *const out[] = {"11.0.0.0", "192.0.2.6",        "2001:db8:8000::1",
                                      "::2",      "::ffff:192.0.2.8", "::198.0.0.1"};
    for (size_t i = 0; i < COUNT_OF(in); i++) {
        address a = of(in[i]);
        assert_true(networks_have(&list, &a));
    }
    for (size_t i = 0; i < COUNT_OF(out); i++) {
        address a = of(out[i]);
        assert_false(networks_have(&list, &a));
    }
    list = networks("0.0.0.0/0");
    address four = of("203.0.113.1"), six = of("2001:db8::1");
    assert_true(networks_have(&list, &four) && !networks_have(&list, &six));
    list = networks("none");
    assert_false(networks_have(&list, &four));
    static const char *const bad[] = {"",
                                      "198.0.0.0/33",
                                      "198.0.0.1/8",
                                      "198.0.0/8",
                                      "x",
                                      "198.0.0.1,",
                                      "::/129",
                                      "198.0.0.0/",
                                      "/8",
                                      "::1/64",
                                      "198.0.0.0/8 11.0.0.0/8",
                                      "198.0.0.0/-1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        slice part;
        assert_false(networks_parse(bad[i], &list, &part));
    }
}

static address client(const char *proxies, proxy_header kind, const char *peer, const char *first,
                      const char *second) {
    network_list list = networks(proxies);
    const char *name = kind == PROXY_FORWARDED ? "Forwarded" : "X-Forwarded-For";
    http_head head = {.header_count = second ? 3 : first ? 2 : 1};
    head.headers[0] = (http_header){SLICE("Host"), SLICE("a")};
    head.headers[1] = (http_header){slice_of(name), slice_of(first)};
    head.headers[2] = (http_header){slice_of(name), slice_of(second)};
    address from = of(peer);
    return address_of_client(&list, kind, &from, &head);
}

static void only_named_proxies_are_believed(void **state) {
    (void)state;
    static const struct {
        const char *proxies;
        proxy_header kind;
        const char *peer, *first, *second, *client;
    } cases[] = {
        {"none", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1", NULL, "198.0.0.1"},
        {"198.0.0.2", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1", NULL, "198.0.0.1"},
        {"198.0.0.1", PROXY_X_FORWARDED_FOR, "198.0.0.1", NULL, NULL, "198.0.0.1"},
        {"198.0.0.1", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1", NULL, "192.0.2.1"},
        /* what the client itself wrote stands further left */
        {"198.0.0.1", PROXY_X_FORWARDED_FOR, "198.0.0.1", "1.1.1.1, 192.0.2.1", NULL, "192.0.2.1"},
        {"198.0.0.1", PROXY_X_FORWARDED_FOR, "198.0.0.1", "1.1.1.1", "192.0.2.1", "192.0.2.1"},
        {"198.0.0.0/8", PROXY_X_FORWARDED_FOR, "198.0.0.1", "1.1.1.1, 192.0.2.1", "198.0.0.9",
         "192.0.2.1"},
        {"198.0.0.0/8", PROXY_X_FORWARDED_FOR, "198.0.0.1", "198.0.0.3,198.0.0.2", NULL,
         "198.0.0.3"},
        /* nonsense ends the walk at who wrote it */
        {"198.0.0.0/8", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1, x, 198.0.0.2", NULL,
         "198.0.0.2"},
        {"198.0.0.0/8", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1,,", NULL, "198.0.0.1"},
        {"198.0.0.1", PROXY_X_FORWARDED_FOR, "198.0.0.1", "192.0.2.1:4711", NULL, "192.0.2.1"},
        {"::1", PROXY_X_FORWARDED_FOR, "::1", "[2001:db8::5]:99", NULL, "2001:db8::5"},
        {"::1", PROXY_X_FORWARDED_FOR, "::1", "2001:db8::5", NULL, "2001:db8::5"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "for=192.0.2.1;proto=https", NULL, "192.0.2.1"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "for=1.1.1.1, by=x; For=192.0.2.1", NULL,
         "192.0.2.1"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "for=\"[2001:db8::5]:99\"", NULL,
         "2001:db8::5"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "for=unknown", NULL, "198.0.0.1"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "for=1.1.1.1, for=_hidden", NULL, "198.0.0.1"},
        {"198.0.0.1", PROXY_FORWARDED, "198.0.0.1", "proto=https", NULL, "198.0.0.1"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        address got =
            client(cases[i].proxies, cases[i].kind, cases[i].peer, cases[i].first, cases[i].second);
        address wanted = of(cases[i].client);
        assert_memory_equal(got.bytes, wanted.bytes, sizeof got.bytes);
    }
    /* the other header is not looked at: the proxy does not write it, so that anybody can */
    network_list list = networks("198.0.0.1");
    address peer = of("198.0.0.1");
    http_head head = {.header_count = 1};
    head.headers[0] = (http_header){SLICE("Forwarded"), SLICE("for=192.0.2.1")};
    address got = address_of_client(&list, PROXY_X_FORWARDED_FOR, &peer, &head);
    assert_memory_equal(got.bytes, peer.bytes, sizeof got.bytes);
}

/* ---- all together ---- */

static void the_gate_counts_each_by_itself(void **state) {
    (void)state;
    static metrics m;
    gate_settings settings = {
        .limits = {[GATE_ADDRESS] = {1, 10, 2}, [GATE_USER] = {1, 2, 0}, [GATE_DEVICE] = {0, 1, 1}},
        .unlimited = networks("127.0.0.1"),
        .proxies = networks("198.0.0.1")};
    http_head head = {.header_count = 0};
    gate *g = NULL;
    gate_lease a = {0}, b = {0}, c = {0};
    assert_int_equal(gate_open(&settings, &m, &g), GODWIT_OK);
    address one = of("2001:db8::1"), neighbour = of("2001:db8::2"), other = of("2001:db9::1");
    assert_false(gate_connect(g, &one, false, 1000, &a).refused);
    assert_false(gate_connect(g, &neighbour, false, 1000, &b).refused);
    assert_true(gate_connect(g, &one, false, 1000, &c).refused && !c.place); /* one /64 */
    assert_false(gate_connect(g, &other, false, 1000, &c).refused);
    gate_leave(g, &a);
    assert_false(gate_connect(g, &one, false, 1000, &a).refused);
    for (int i = 0; i < 7; i++) {
        assert_false(gate_request(g, &one, &head, 1000).refused);
    }
    gate_answer refused = gate_request(g, &one, &head, 1000);
    assert_true(refused.refused && refused.retry_after_s == 1);
    gate_bad_token(g, &other, &head, 1000);
    assert_int_equal(gate_request(g, &other, &head, 1000).retry_after_s, 2);
    address local = of("127.0.0.1"), proxy = of("198.0.0.1");
    for (int i = 0; i < 100; i++) {
        gate_lease none = {0};
        assert_false(gate_connect(g, &local, true, 1000, &none).refused || none.place);
        assert_false(gate_request(g, &proxy, &head, 1000).refused);
        gate_bad_token(g, &proxy, &head, 1000);
    }
    gate_lease u = {0}, d = {0}, e = {0};
    assert_false(gate_user(g, SLICE("ana"), 1000, &u).refused);
    gate_leave(g, &u);
    assert_false(gate_user(g, SLICE("ana"), 1000, &u).refused);
    gate_leave(g, &u);
    assert_true(gate_user(g, SLICE("ana"), 1000, &u).refused);
    assert_false(gate_user(g, SLICE("bob"), 1000, &u).refused);
    assert_false(gate_device(g, SLICE("ana"), SLICE("d"), 1000, &d).refused);
    assert_true(gate_device(g, SLICE("ana"), SLICE("d"), 1000, &e).refused);
    /* who names another's device holds up nobody, and the two names do not run together */
    assert_false(gate_device(g, SLICE("bob"), SLICE("d"), 1000, &e).refused);
    gate_leave(g, &e);
    assert_false(gate_device(g, SLICE("an"), SLICE("ad"), 1000, &e).refused);
    assert_int_equal(m.limited[GATE_ADDRESS][1], 1);
    assert_int_equal(m.limited[GATE_ADDRESS][0], 2);
    assert_int_equal(m.limited[GATE_USER][0], 1);
    assert_int_equal(m.limited[GATE_DEVICE][1], 1);
    gate_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_empties_and_fills),
        cmocka_unit_test(what_waits_as_long_as_it_was_told_comes_in),
        cmocka_unit_test(a_charge_leaves_a_bounded_debt),
        cmocka_unit_test(only_so_many_are_inside),
        cmocka_unit_test(places_are_given_away_only_when_they_say_nothing),
        cmocka_unit_test(networks_have_their_addresses),
        cmocka_unit_test(only_named_proxies_are_believed),
        cmocka_unit_test(the_gate_counts_each_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
