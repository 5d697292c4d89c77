"""Questions to a shop's support, each with a good and a poor answer and what a judge says of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Support:
    """One question with two answers and two reasons."""

    question: str
    good: str
    poor: str
    praise: str
    blame: str


SUPPORT = (
    Support(
        "My headphones only play on the left side since this morning. What can I try before I send them in?",
        "That is often a pairing fault, not a broken driver. Put both earpieces into the case, hold the "
        "button for ten seconds until the light turns white, and pair them again. Then check the balance "
        "under Sound > Accessibility. If the right side stays silent, clean its contacts; after that a repair"
        " is free within 24 months.",
        "Please restart your phone. If the problem persists, the headphones may be defective and you can buy "
        "new ones in our shop.",
        "Names the likely cause, gives the steps in a sensible order, and says what the warranty covers.",
        "Skips the reset and the balance setting, and does not mention that a repair within the warranty is free.",
    ),
    Support(
        "I ordered the wrong size. Can I exchange it although I threw the box away?",
        "Yes. You can exchange it for 30 days, and the original box is not needed as long as the item is "
        "unworn. Choose Exchange in your order, print the label, and use any sturdy parcel. The new size "
        "leaves as soon as the parcel is scanned.",
        "Items can only be returned in their original packaging within 14 days.",
        "Right about the box and the period, and explains how the exchange is started.",
        "Contradicts the terms: an exchange needs no original box, and the period is 30 days.",
    ),
    Support(
        "Why was I charged twice for order 4471?",
        "You were charged once. The second line is a reservation from the first, declined attempt; your bank "
        "releases it within seven days, and no money moves. If it is still there after that, send us the "
        "statement and we will clear it with the bank.",
        "We are sorry for the inconvenience. The second amount will be refunded to your account within 14 days.",
        "Explains the reservation correctly and says when it disappears and what to do if it does not.",
        "Promises a refund of money that was never taken.",
    ),
    Support(
        "How do I turn the motion sensor off at night only?",
        "Open the app, choose the sensor, then Schedules > Add. Set it to inactive from 22:00 to 6:30 and "
        "pick the days. It keeps recording the temperature meanwhile. The lamp beside the sensor shows orange"
        " while a schedule holds.",
        "Remove the batteries in the evening and put them back in the morning.",
        "Uses the schedule that exists for this, with the exact path.",
        "Works in a way, but ignores the schedule that the question is about.",
    ),
    Support(
        "Does the kettle switch itself off when it is empty?",
        "Yes. A thermostat under the base cuts the power within a few seconds when there is no water. Let it "
        "cool for ten minutes, fill it, and it works again.",
        "Yes, it switches off when the water boils.",
        "Answers exactly what was asked and adds how to use it again.",
        "Answers another question: boiling, not an empty kettle.",
    ),
    Support(
        "Can you send the invoice to my company instead of me?",
        "Yes, until the order ships. Open the order, choose Billing > Edit, and enter the company and its VAT"
        " number. After shipping we can issue a corrected invoice within the same month: reply with the "
        "details.",
        "Unfortunately invoices cannot be changed for legal reasons.",
        "Correct for both cases, before and after shipping.",
        "Wrong: the address can be changed, and a corrected invoice can be issued.",
    ),
    Support(
        "The app says that my scale is offline, but its display works.",
        "The display works without Wi-Fi, so the scale has probably lost the network. Hold the button below "
        "for five seconds until it blinks, and connect it again in the app under Devices > Add. It only sees "
        "2.4 GHz networks.",
        "Please make sure that the scale is connected to Wi-Fi.",
        "Explains the contradiction and gives the way to connect again, with the 2.4 GHz limit.",
        "Repeats the problem without saying how to connect the scale again.",
    ),
    Support(
        "Is the blender's jug safe in the dishwasher?",
        "The jug and the lid are, in the upper basket at up to 60 degrees. Take the blade unit out first and "
        "wash it by hand: its seal does not stand the detergent.",
        "Yes, all parts are dishwasher safe.",
        "Distinguishes the jug from the blade unit, which matters here.",
        "Harmful: the blade unit must not go into the dishwasher.",
    ),
)
