//! What must be found, what must not, and that nothing breaks the search.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

fn filter() -> ContentFilter {
    ContentFilter::shipped(Thresholds::default()).expect("the shipped lists can be read")
}

/// One for all tests: making it ready costs more than a search.
static FILTER: LazyLock<ContentFilter> = LazyLock::new(filter);
static STRICT: LazyLock<ContentFilter> = LazyLock::new(|| {
    let mild = Some(Severity::Mild);
    ContentFilter::shipped(Thresholds { profanity: mild, hate: mild, threat: mild }).unwrap()
});

fn found(text: &str) -> Option<(Category, Severity)> {
    FILTER.worst(&mut Scratch::default(), text).map(|finding| (finding.category, finding.severity))
}

/// Every row is a text and the category of the worst in it.
fn check(rows: &[(&str, Option<Category>)]) {
    let (filter, mut scratch) = (&*FILTER, Scratch::default());
    let wrong: Vec<_> = rows
        .iter()
        .map(|&(text, want)| (text, want, filter.worst(&mut scratch, text).map(|finding| finding.category)))
        .filter(|(_, want, got)| want != got)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const PROFANE: Option<Category> = Some(Category::Profanity);
const HATEFUL: Option<Category> = Some(Category::Hate);
const THREAT: Option<Category> = Some(Category::Threat);

#[test]
fn profanity_in_its_disguises() {
    check(&[
        ("what the fuck is this", PROFANE),
        ("FUCK.", PROFANE),
        ("fuuuuuck you", PROFANE),
        ("f u c k this", PROFANE),
        ("f.u.c.k", PROFANE),
        ("f-u-c-k", PROFANE),
        ("f_u_c_k", PROFANE),
        ("f**k off", PROFANE),
        ("f*ck off", PROFANE),
        ("f*** off", PROFANE),
        ("fu@k", PROFANE),
        ("sh1t happens", PROFANE),
        ("$hit", PROFANE),
        ("5hit", PROFANE),
        ("a$$hole", PROFANE),
        ("as$hole", PROFANE),
        ("b1tch", PROFANE),
        ("b!tches", PROFANE),
        ("assho1e", PROFANE),
        ("ＦＵＣＫ", PROFANE),
        ("𝐟𝐮𝐜𝐤", PROFANE),
        ("fυck", PROFANE),                      // Greek upsilon
        ("ѕhіt", PROFANE),                      // Cyrillic
        ("fu\u{200b}ck", PROFANE),              // a zero-width space
        ("s\u{336}h\u{336}i\u{336}t", PROFANE), // struck through
        ("motherfucking", PROFANE),
        ("you dickwaffle, you pissgoblins", PROFANE),
        ("s.hit", PROFANE),
        ("you are a total bullshitter", PROFANE),
        ("hijo de puta", PROFANE),
        ("Хуй тебе", PROFANE),
        ("du Arschloch", PROFANE),
    ]);
}

#[test]
fn words_that_only_look_like_it() {
    check(&[
        ("Greetings from Scunthorpe", None),
        ("Penistone and Lightwater", None),
        ("a classic bass assessment of the mass", None),
        ("the assassin passed the grass", None),
        ("Please see the analysis of the analyst", None),
        ("cocktail hour with cockatoos", None),
        ("Dick Miller and Moby Dick", None),
        ("the garden hoe is by the shovel", None),
        ("it is in the document under circumstances", None),
        ("push it, class.it", None),
        ("Essex and Sussex", None),
        ("niggardly is not niggling", None),
        ("He sniggered in Nigeria by the Niger", None),
        ("therapist", None),
        ("a nutcracker, a bellhop and a ballboy", None),
        ("shiitake mushrooms", None),
        ("hello, well, we'll see, he'll come", None),
        ("I got the pics in time", None),
        ("the Galaxy A55 costs $455", None),
        ("mail me@example.com or 5h later at 17:45", None),
        ("dad's hit, mom's hits", None),
        ("a b c d e f g h i j", None),
        ("dies hit keinen", None),
        ("Die Scheibe ist neu", None),
        ("cumulative accumulations", None),
        ("order 0x55aa55 b00k", None),
        ("add it to **your** file, n'importe *qui*, PIN*", None),
        ("mail kitabayashi7@gestion.example or pass@host.example", None),
        ("il arrive en retard, plus tard", None),
        ("", None),
        ("...!!! ??? *** @@@ $$$", None),
    ]);
}

#[test]
fn threats_are_told_by_who_does_what_to_whom() {
    check(&[
        ("I will kill you", THREAT),
        ("I'll kill you", THREAT),
        ("we're gonna shoot him", THREAT),
        ("I am going to stab that woman tomorrow", THREAT),
        ("Kill all of them", THREAT),
        ("You deserve to die", THREAT),
        ("these people should be hanged", THREAT),
        ("I know where you live", THREAT),
        ("we will burn your house down", THREAT),
        ("go kill yourself", THREAT),
        ("I w1ll k1ll you", THREAT),
        ("we will\nkill you", THREAT),
        ("I want to k i l l you", THREAT),
        ("death to all of you", THREAT),
        ("I'm going to break your legs", THREAT),
        ("te voy a matar", THREAT),
        // The same verbs, and nobody is hurt.
        ("please kill the process", None),
        ("kill all running jobs", None),
        ("I will kill the server and execute the query", None),
        ("execute the query for each customer", None),
        ("we should shoot you an email", None),
        ("I'll shoot him a message", None),
        ("let's hang out with them", None),
        ("I will not kill you", None),
        ("I would never hurt you", None),
        ("We must never kill people", None),
        ("this will kill two birds with one stone", None),
        ("we are going to end this call", None),
        ("the script will terminate the session", None),
        ("I would kill for a coffee", None),
        ("they want to beat the market", None),
        ("Threatening to kill people will get you thrown in jail", None),
    ]);
}

#[test]
fn hate_is_a_slur_or_contempt_for_a_group() {
    check(&[
        ("Muslims are vermin", HATEFUL),
        ("all immigrants are parasites", HATEFUL),
        ("I hate gay people", HATEFUL),
        ("women are a plague to society", HATEFUL),
        ("immigrants like you are no better than rats", HATEFUL),
        ("Black people are s c u m", HATEFUL),
        ("Immigrants think they are special. I hate them.", HATEFUL),
        ("you faggot", HATEFUL),
        ("f4gg0t", HATEFUL),
        ("I don't hate Muslims", None),
        ("I hate Mondays. Women know that.", None),
        ("Women are wonderful", None),
        ("Trans people belong in our government", None),
        ("Disabled people do not deserve to be tortured", None),
        ("Black lives are not worth any less than anyone else's", None),
        ("Our immigrants programme is a credit to society", None),
        ("flame retardant in black or white", None),
    ]);
}

#[test]
fn the_worst_is_told_and_where() {
    let (filter, mut scratch) = (&*FILTER, Scratch::default());
    let text = "This is shit. And now I will kill you, äöü!";
    let finding = filter.worst(&mut scratch, text).unwrap();
    assert_eq!((finding.category, finding.severity), (Category::Threat, Severity::Severe));
    assert!(text[finding.at..].starts_with("I will"));
    let mut all = Vec::new();
    filter.each(&mut scratch, text, |finding| all.push(finding.category));
    assert!(all.contains(&Category::Profanity) && all.contains(&Category::Threat));
}

#[test]
fn thresholds_decide_what_counts() {
    let strict = Thresholds { profanity: Some(Severity::Mild), ..Thresholds::default() };
    let lax = Thresholds { profanity: None, hate: Some(Severity::Severe), threat: None };
    let with = |thresholds, text: &str| {
        ContentFilter::shipped(thresholds).unwrap().worst(&mut Scratch::default(), text).map(|finding| finding.category)
    };
    assert_eq!(found("oh damn"), None);
    assert_eq!(with(strict, "oh damn"), PROFANE);
    assert_eq!(with(lax, "fuck, I will kill you"), None);
    assert_eq!(with(lax, "you faggot"), HATEFUL);
}

#[test]
fn lists_are_replaceable_and_their_faults_are_told() {
    let filter = |list| ContentFilter::new([("own.txt", list)].into_iter(), Thresholds::default());
    let own = filter("[profanity severe]\nb[ao]n?anas / not near fruit\n*plum*\n[allow]\nplumber\n").unwrap();
    let worst = |text: &str| own.worst(&mut Scratch::default(), text).is_some();
    assert!(worst("bananas") && worst("bonana s bonanas") && worst("b4n4n4s") && worst("sugarplums"));
    assert!(!worst("bananas are a fruit") && !worst("the plumber") && !worst("fuck"));
    for (list, line) in [
        ("word\n", 1),
        ("# note\n[nonsense severe]\nword\n", 2),
        ("[profanity severe]\nfine\ntwo {nothing}\n", 3),
        ("[profanity severe]\nword / whatever\n", 2),
        ("[profanity severe]\n[abc\n", 2),
        ("[profanity severe]\n..3 word\n", 2),
        ("[profanity severe]\n12\n", 2),
    ] {
        let (name, fault) = filter(list).map(|_| ()).unwrap_err();
        assert_eq!((name.as_str(), fault.line), ("own.txt", line), "{list}: {fault:?}");
    }
}

#[test]
fn stems_of_any_length_are_found() {
    for stem in ["q", "qz", "qzj", "qzjx", "qzjxk", "qzjxkv"] {
        let places = [(format!("{stem}*"), format!("{stem}a")), (format!("*{stem}"), format!("a{stem}"))];
        for (entry, word) in places.into_iter().chain([(format!("*{stem}*"), format!("a{stem}e"))]) {
            let list = format!("[profanity severe]\n{entry}\n");
            let own = ContentFilter::new([("own.txt", list.as_str())].into_iter(), Thresholds::default()).unwrap();
            let worst = |text: &str| own.worst(&mut Scratch::default(), text).is_some();
            assert!(worst(&word) && worst(&format!("that is, {word}. Yes")), "{entry} in {word}");
            assert!(!worst("that is a word. Yes"), "{entry}");
        }
    }
}

#[test]
fn what_is_held_does_not_grow_with_the_text() {
    let (filter, mut scratch) = (&*FILTER, Scratch::default());
    for text in ["a ".repeat(10_000), "x".repeat(30_000), "4a".repeat(10_000), "f*".repeat(10_000), "é-".repeat(10_000)]
    {
        let _ = filter.worst(&mut scratch, &text);
        assert!(scratch.view.letters.capacity() <= 32 * 1024, "{}: {}", &text[..2], scratch.view.letters.capacity());
        assert!(scratch.view.tokens.capacity() <= 1024);
    }
    // A long text is searched to its end, wherever its segments are cut.
    for before in [0, 190, 191, 192, 193, 1000] {
        let text = format!("{}fuck", "word ".repeat(before));
        assert!(filter.worst(&mut scratch, &text).is_some(), "{before}");
    }
}

proptest! {
    #[test]
    fn any_text_is_searched_and_findings_lie_in_it(text in "\\PC{0,80}|[a-f1!@$* ._'\"\\-éфß\u{200b}]{0,120}|(I will |kill |you |shit |not |gay |people |are |scum ){0,30}") {
        let filter = &*STRICT;
        let mut scratch = Scratch::default();
        let mut all = Vec::new();
        filter.each(&mut scratch, &text, |finding| all.push(finding));
        prop_assert!(all.iter().all(|finding| text.is_char_boundary(finding.at) && finding.at < text.len()));
        // What was searched before has no bearing on it.
        let mut again = Vec::new();
        filter.each(&mut scratch, &text, |finding| again.push(finding));
        prop_assert_eq!(all, again);
    }

    #[test]
    fn case_and_repetition_hide_nothing(upper in proptest::collection::vec(any::<bool>(), 4), times in 1usize..6, place in 0usize..4) {
        let mut text = String::from("well ");
        for (index, letter) in "fuck".chars().enumerate() {
            let letter = if upper[index] { letter.to_ascii_uppercase() } else { letter };
            text.extend(std::iter::repeat_n(letter, if index == place { times } else { 1 }));
        }
        prop_assert_eq!(found(&text).map(|(category, _)| category), PROFANE);
    }
}
